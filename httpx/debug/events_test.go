package debug_test

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// serve has the page served in virtual time, and returns a browser's way to it.
func (l *lab) serve() (*http.Server, *http.Client) {
	l.Helper()
	ln, err := l.net.Listen("127.0.0.1:8080")
	if err != nil {
		l.Fatal(err)
	}
	s := &http.Server{Handler: l.page, WriteTimeout: 10 * time.Second}
	go s.Serve(ln)
	tr := &http.Transport{
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return l.net.DialContext(ctx, network, address)
		},
		DisableCompression: true,
	}
	l.Cleanup(func() {
		s.Close()
		tr.CloseIdleConnections()
	})
	return s, &http.Client{Transport: tr}
}

// A viewing is a stream of events, line by line.
type viewing struct {
	*lab
	resp  *http.Response
	lines *bufio.Reader
}

func (l *lab) view(c *http.Client, accepts string) *viewing {
	l.Helper()
	r, err := http.NewRequestWithContext(l.Context(), http.MethodGet, "http://127.0.0.1:8080/events", nil)
	if err != nil {
		l.Fatal(err)
	}
	if accepts != "" {
		r.Header.Set("Accept-Encoding", accepts)
	}
	resp, err := c.Do(r)
	if err != nil {
		l.Fatal(err)
	}
	v := &viewing{l, resp, bufio.NewReader(resp.Body)}
	if resp.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(resp.Body)
		if err != nil {
			l.Fatal(err)
		}
		v.lines = bufio.NewReader(z)
	}
	return v
}

// event returns the fields of the next event, or of the next lines that are none.
func (v *viewing) event() (map[string]string, error) {
	fields := make(map[string]string)
	for {
		line, err := v.lines.ReadString('\n')
		if err != nil {
			return nil, err
		}
		if line == "\n" {
			return fields, nil
		}
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		fields[name] = value
	}
}

// A shown is as much of a state as these tests look at.
type shown struct {
	At    int64 `json:"at_ms"`
	Ports struct {
		Active int `json:"active"`
	} `json:"ports"`
	History struct {
		At []int64 `json:"at_ms"`
	} `json:"history"`
}

func (v *viewing) state() (s shown) {
	v.Helper()
	fields, err := v.event()
	for ; err == nil && fields["event"] == ""; fields, err = v.event() {
	}
	if err == nil {
		err = json.Unmarshal([]byte(fields["data"]), &s)
	}
	if err != nil {
		v.Fatal(err)
	}
	return s
}

func TestAViewerSeesThePastAtOnceAndThenEachSecond(t *testing.T) {
	for _, accepts := range []string{"", "gzip"} {
		inLab(t, azure(8), func(l *lab) {
			l.raw("20.1.2.3:443")
			_, c := l.serve()
			l.get("") // from here on it looks
			time.Sleep(5 * time.Minute)
			v := l.view(c, accepts)
			if h := v.resp.Header; h.Get("Content-Type") != "text/event-stream" || h.Get("X-Accel-Buffering") != "no" || h.Get("Content-Encoding") != accepts {
				l.Errorf("the headers are %v", h)
			}
			if first, err := v.event(); err != nil || first["retry"] != "2000" {
				l.Errorf("it begins with %v, %v", first, err)
			}
			if s := v.state(); len(s.History.At) < 299 || len(s.History.At) > 301 {
				l.Errorf("after 5 minutes there are %d samples of the past", len(s.History.At))
			}
			l.dial("20.1.2.3:443")
			v.state()
			last := v.state()
			for range 100 { // for longer than the server lets an answer take
				s := v.state()
				if d := s.At - last.At; d != 1000 {
					l.Fatalf("the next one is %d ms later", d)
				}
				if len(s.History.At) != 1 || s.History.At[0] != s.At || s.Ports.Active != 1 {
					l.Fatalf("it shows %+v", s)
				}
				last = s
			}
			v.resp.Body.Close()
		})
	}
}

func TestAHeartbeatKeepsTheStreamKnownToProxies(t *testing.T) {
	inLab(t, azure(8), func(l *lab) {
		_, c := l.serve()
		v := l.view(c, "")
		begun := time.Now()
		for {
			fields, err := v.event()
			if err != nil {
				l.Fatal(err)
			}
			if _, comment := fields[""]; comment {
				break
			}
		}
		if took := time.Since(begun).Round(time.Second); took != 15*time.Second {
			l.Errorf("the first came after %v", took)
		}
		v.resp.Body.Close()
	})
}

func TestTheSeventeenthViewerIsSentAwayUntilOneLeaves(t *testing.T) {
	inLab(t, azure(8), func(l *lab) {
		_, c := l.serve()
		var seen []*viewing
		for range 16 {
			seen = append(seen, l.view(c, ""))
		}
		v := l.view(c, "")
		if v.resp.StatusCode != http.StatusServiceUnavailable || v.resp.Header.Get("Retry-After") != "5" {
			l.Errorf("%s, Retry-After: %s", v.resp.Status, v.resp.Header.Get("Retry-After"))
		}
		v.resp.Body.Close()
		seen[7].resp.Body.Close()
		time.Sleep(2 * time.Second)
		if v = l.view(c, ""); v.resp.StatusCode != http.StatusOK {
			l.Errorf("after one has left: %s", v.resp.Status)
		}
		v.state()
		v.resp.Body.Close()
		for _, v := range seen {
			v.resp.Body.Close()
		}
	})
}

func TestAViewerThatHangsHoldsUpNobodyAndLosesItsPlace(t *testing.T) {
	inLab(t, azure(128), func(l *lab) {
		l.raw("20.1.2.3:443")
		for range 20 {
			l.dial("20.1.2.3:443")
		}
		_, c := l.serve()
		var hanging []*viewing
		for range 16 {
			hanging = append(hanging, l.view(c, ""))
		}
		time.Sleep(2 * time.Minute) // what is on the way fills up, and then there is a deadline
		v := l.view(c, "")
		if v.resp.StatusCode != http.StatusOK {
			l.Fatalf("they still have their places: %s", v.resp.Status)
		}
		last := v.state()
		for range 10 {
			s := v.state()
			if d := s.At - last.At; d > 1000 {
				l.Errorf("the next one is %d ms later", d)
			}
			last = s
		}
		v.resp.Body.Close()
		for _, v := range hanging {
			v.resp.Body.Close()
		}
	})
}

func TestItLooksForAQuarterOfAnHourAfterTheLastViewer(t *testing.T) {
	inLab(t, azure(8), func(l *lab) {
		_, c := l.serve()
		past := func() int {
			var s shown
			if err := json.Unmarshal(l.get("?format=json").Body.Bytes(), &s); err != nil {
				l.Fatal(err)
			}
			return len(s.History.At)
		}
		v := l.view(c, "")
		time.Sleep(time.Minute)
		v.resp.Body.Close()
		time.Sleep(14 * time.Minute)
		if n := past(); n < 898 || n > 900 {
			l.Errorf("14 minutes later, %d samples are kept", n)
		}
		time.Sleep(30 * time.Minute) // more than that after somebody has looked again
		if n := past(); n > 1 {      // that of now
			l.Errorf("though nobody has looked for half an hour, %d samples are kept", n)
		}
		time.Sleep(10*time.Second + 500*time.Millisecond)
		if n := past(); n != 11 { // one at once
			l.Errorf("10 s after it was looked at again, %d samples are kept", n)
		}
	})
}

func TestNothingRunsBeforeTheFirstRequestOrAfterTheLast(t *testing.T) {
	inLab(t, azure(8), func(l *lab) {
		running := func() (runs bool) {
			at := l.page.LastLook()
			time.Sleep(5 * time.Second)
			return l.page.LastLook() != at
		}
		if running() {
			l.Error("it looks before anybody has asked")
		}
		l.get("page.js")
		if running() {
			l.Error("it looks for a file")
		}
		l.get("?format=text")
		if !running() {
			l.Error("it does not go on looking")
		}
		time.Sleep(15 * time.Minute)
		if running() {
			l.Error("it still looks")
		}
	})
}

func TestRecordKeepsThePastForWhoeverComes(t *testing.T) {
	inLab(t, azure(8), func(l *lab) {
		ctx, cancel := context.WithCancelCause(l.Context())
		why := errors.New("enough")
		ended := make(chan error)
		go func() { ended <- l.page.Record(ctx) }()
		time.Sleep(time.Hour)
		var s shown
		if err := json.Unmarshal(l.get("?format=json").Body.Bytes(), &s); err != nil {
			l.Fatal(err)
		}
		if n := len(s.History.At); n < 899 || n > 900 {
			l.Errorf("after an hour, %d samples are kept", n)
		}
		cancel(why)
		if err := <-ended; err != why {
			l.Errorf("it ends with %v", err)
		}
	})
}

func TestAServerThatIsShutDownWaitsForNoViewer(t *testing.T) {
	inLab(t, azure(8), func(l *lab) {
		s, c := l.serve()
		v := l.view(c, "")
		v.state()
		begun := time.Now()
		ctx, cancel := context.WithTimeout(l.Context(), time.Minute)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			l.Error(err)
		}
		if took := time.Since(begun); took > 2*time.Second {
			l.Errorf("it took %v", took)
		}
		if _, err := io.ReadAll(v.lines); err != nil {
			l.Errorf("the stream ends with %v", err)
		}
	})
}

func TestHoweverManyAskTheLedgerIsLookedAtAFewTimesASecond(t *testing.T) {
	inLab(t, azure(8), func(l *lab) {
		looks := make(map[time.Time]bool)
		for range 1000 {
			l.get("?format=json")
			looks[l.page.LastLook()] = true
			time.Sleep(time.Millisecond)
		}
		if len(looks) < 4 || len(looks) > 6 {
			l.Errorf("%d times in a second", len(looks))
		}
	})
}

func TestAClosedPageLeavesNothingBehind(t *testing.T) {
	inLab(t, azure(8), func(l *lab) {
		s, c := l.serve()
		defer s.Close()
		v := l.view(c, "")
		recorded := make(chan error)
		go func() { recorded <- l.page.Record(l.Context()) }()
		time.Sleep(3 * time.Second)
		if err := errors.Join(l.page.Close(), l.page.Close()); err != nil {
			l.Error(err)
		}
		if err := <-recorded; err == nil {
			l.Error("Record says nothing of it")
		}
		io.Copy(io.Discard, v.resp.Body) // which ends
		if got := l.get("").Code; got != http.StatusServiceUnavailable {
			l.Errorf("a closed page answers %d", got)
		}
	})
}

// A bare ResponseWriter is as most middleware has it: without Flush, or a way to whoever can.
type bare struct{ http.ResponseWriter }

func TestWhereNobodyCanFlushAViewerIsShownOneStateAndAsksAgain(t *testing.T) {
	inLab(t, azure(8), func(l *lab) {
		l.raw("20.1.2.3:443")
		l.dial("20.1.2.3:443")
		l.get("") // from here on it looks
		time.Sleep(time.Minute)
		for name, behind := range map[string]http.Handler{
			"a middleware":   http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { l.page.ServeHTTP(bare{w}, r) }),
			"TimeoutHandler": http.TimeoutHandler(l.page, 5*time.Second, "late"),
		} {
			last, samples := "", []int{61, 1}
			for range 2 {
				time.Sleep(1500 * time.Millisecond)
				r := request(http.MethodGet, "/events")
				r.Header.Set("Accept-Encoding", "gzip") // which would have an end that nobody writes
				r.Header.Set("Last-Event-ID", last)
				w := httptest.NewRecorder()
				behind.ServeHTTP(w, r)
				v := &viewing{lab: l, lines: bufio.NewReader(w.Body)}
				if first, err := v.event(); err != nil || first["retry"] != "1000" {
					l.Errorf("%s: it begins with %v, %v", name, first, err)
				}
				s := v.state()
				if s.Ports.Active != 1 || len(s.History.At) < samples[0] || len(s.History.At) > samples[0]+4 {
					l.Errorf("%s: %d ports, and %d samples of the past", name, s.Ports.Active, len(s.History.At))
				}
				last, samples = strconv.FormatInt(s.At, 10), samples[1:]
			}
		}
	})
}

func TestWhatHappensInTheFirstSecondIsRemembered(t *testing.T) {
	inLab(t, azure(128), func(l *lab) {
		l.raw("20.1.2.3:443")
		go l.page.Record(l.Context())
		synctest.Wait()
		for range 20 {
			l.dial("20.1.2.3:443").Close()
		}
		time.Sleep(3 * time.Second)
		var s struct {
			History struct {
				At     []int64   `json:"at_ms"`
				Dials  []float64 `json:"dials_per_second"`
				Closes []float64 `json:"closes_per_second"`
			}
		}
		if err := json.Unmarshal(l.get("?format=json").Body.Bytes(), &s); err != nil {
			l.Fatal(err)
		}
		h := s.History
		if len(h.At) < 3 || h.Dials[0] != 0 || h.Dials[1] != 20 || h.Closes[1] != 20 {
			l.Errorf("%+v", h)
		}
	})
}
