package debug_test

import (
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/httpx/debug"
)

func TestThePageWorksUnderAnyPath(t *testing.T) {
	inLab(t, azure(2), func(l *lab) {
		for _, prefix := range []string{"/", "/debug/natwise/", "/a%2Fb/:c//"} {
			for name, kind := range map[string]string{
				"": "text/html; charset=utf-8", "page.css": "text/css; charset=utf-8", "page.js": "text/javascript; charset=utf-8",
				"page.svg": "image/svg+xml", "?format=json": "application/json", "?format=text": "text/plain; charset=utf-8",
			} {
				if w := get(l.T, l.page, prefix+name); w.Code != http.StatusOK || w.Header().Get("Content-Type") != kind || w.Body.Len() == 0 {
					l.Errorf("%s%s: %d, %s", prefix, name, w.Code, w.Header().Get("Content-Type"))
				}
			}
		}
	})
}

func TestWithoutItsSlashThePageIsFoundAllTheSame(t *testing.T) {
	mux := http.NewServeMux()
	page := new(debug.Page)
	mux.Handle("/one/", page)
	mux.Handle("/two", page) // which is all that somebody's router may pass
	mux.Handle("/three/", http.StripPrefix("/three", page))
	for asked, want := range map[string]string{
		"/one?format=text":   "/one/?format=text",
		"/two?format=text":   "/two/?format=text",
		"/three?format=text": "/three/?format=text",
		"/one/javascript:x":  "/one/javascript:x/",
	} {
		if to := leads(t, mux, asked); to != "http://localhost:8080"+want {
			t.Errorf("%s leads to %s, want %s", asked, to, want)
		}
	}
	if to := leads(t, page, "//evil"); to != "http://localhost:8080//evil/" {
		t.Errorf("a path like another site's address leads to %s", to)
	}
}

func TestWhatThePageDoesNotHaveIsNotFound(t *testing.T) {
	page := new(debug.Page)
	for _, path := range []string{"/favicon.ico", "/debug/natwise/page.js.map", "/page.css.gz"} {
		if w := get(t, page, path); w.Code != http.StatusNotFound || w.Header().Get("Content-Security-Policy") == "" {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
	r := request(http.MethodGet, "/event")
	r.Header.Set("Sec-Fetch-Dest", "empty") // as a script asks
	w := httptest.NewRecorder()
	if page.ServeHTTP(w, r); w.Code != http.StatusNotFound {
		t.Errorf("of what a script asks for: %d", w.Code)
	}
}

// leads is where a browser goes that is redirected.
func leads(t *testing.T, h http.Handler, path string) string {
	t.Helper()
	r := request(http.MethodGet, "http://localhost:8080"+path)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	to, err := w.Result().Location()
	if err != nil {
		t.Errorf("%s: %d, %v", path, w.Code, err)
		return ""
	}
	return r.URL.ResolveReference(to).String()
}

func TestThePageIsOnlyForLookingAt(t *testing.T) {
	page := new(debug.Page)
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions, http.MethodTrace} {
		for _, path := range []string{"/", "/events", "/page.js"} {
			w := httptest.NewRecorder()
			page.ServeHTTP(w, request(method, path))
			if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: %d, Allow: %s", method, path, w.Code, w.Header().Get("Allow"))
			}
		}
	}
}

func TestHeadHasTheHeadersOfGet(t *testing.T) {
	inLab(t, azure(2), func(l *lab) {
		for _, path := range []string{"/", "/page.js", "/events"} {
			w := httptest.NewRecorder()
			l.page.ServeHTTP(w, request(http.MethodHead, path))
			if w.Code != http.StatusOK || w.Header().Get("Content-Type") == "" {
				l.Errorf("%s: %d, %v", path, w.Code, w.Header())
			}
		}
	})
}

func TestABrowserIsToldToTrustNothingElse(t *testing.T) {
	inLab(t, azure(2), func(l *lab) {
		for _, path := range []string{"", "page.js", "page.css", "?format=json", "?format=text", "?format=json&destination=x", "nowhere"} {
			h := l.get(path).Header()
			for name, want := range map[string]string{
				"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
					"frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
				"X-Content-Type-Options":       "nosniff",
				"Cross-Origin-Resource-Policy": "same-origin",
				"Referrer-Policy":              "no-referrer",
				"Cache-Control":                "no-store",
				"Access-Control-Allow-Origin":  "",
			} {
				if got := h.Get(name); got != want {
					l.Errorf("%q: %s is %q", path, name, got)
				}
			}
		}
	})
}

func TestOnlyThisMachineIsAnsweredByItsOwnName(t *testing.T) {
	page := &debug.Page{Ledger: new(dialer.Ledger)}
	for _, c := range []struct {
		peer, host string
		says       string // of why not; "": it is answered
	}{
		{"127.0.0.1:5000", "localhost:8080", ""},
		{"127.0.0.1:5000", "localhost", ""},
		{"127.8.9.1:5000", "127.0.0.1:8080", ""},
		{"[::1]:5000", "[::1]:8080", ""},
		{"[::1]:5000", "[::1]", ""},
		{"[::ffff:127.0.0.1]:5000", "LOCALHOST:80", ""},
		{"10.0.0.7:5000", "localhost:8080", "you ask from 10.0.0.7:5000"},
		{"[2001:db8::1]:5000", "localhost:8080", "you ask from [2001:db8::1]:5000"},
		{"@", "localhost", "you ask from @"},
		{"127.0.0.1:5000", "evil.example:8080", "the host evil.example:8080"},
		{"127.0.0.1:5000", "localhost.evil.example", "the host localhost.evil.example"},
		{"127.0.0.1:5000", "127.0.0.1.evil.example", "the host 127.0.0.1.evil.example"},
		{"127.0.0.1:5000", "10.0.0.7:8080", "the host 10.0.0.7:8080"},
		{"127.0.0.1:5000", "", "the host "},
	} {
		for _, path := range []string{"/page.js", "/events", "/?format=json"} {
			r := request(http.MethodHead, path)
			if path == "/page.js" {
				r.Method = http.MethodGet
			}
			r.RemoteAddr, r.Host = c.peer, c.host
			if c.says == "" && path != "/page.js" {
				continue
			}
			w := httptest.NewRecorder()
			page.ServeHTTP(w, r)
			body := w.Body.String()
			switch {
			case c.says == "" && w.Code != http.StatusOK:
				t.Errorf("%s for %s%s: %d, %s", c.peer, c.host, path, w.Code, body)
			case c.says != "" && (w.Code != http.StatusForbidden || !strings.Contains(body, c.says) || !strings.Contains(body, "Allow") || strings.Count(body, "\n") != 1):
				t.Errorf("%s for %s%s: %d, %s", c.peer, c.host, path, w.Code, body)
			}
		}
	}
}

func TestAnotherSitesScriptsAreNotAnsweredEvenWhereEverybodyIs(t *testing.T) {
	for name, page := range map[string]*debug.Page{
		"as it comes": {}, "open": {Allow: func(*http.Request) bool { return true }},
	} {
		for site, want := range map[string]int{
			"": http.StatusOK, "none": http.StatusOK, "same-origin": http.StatusOK,
			"same-site": http.StatusForbidden, "cross-site": http.StatusForbidden, "whatever": http.StatusForbidden,
		} {
			r := request(http.MethodGet, "/page.js")
			r.Header.Set("Sec-Fetch-Site", site)
			w := httptest.NewRecorder()
			page.ServeHTTP(w, r)
			if w.Code != want {
				t.Errorf("%s, Sec-Fetch-Site %q: %d, want %d", name, site, w.Code, want)
			}
		}
	}
}

func TestALinkOfAnotherSiteMayLeadHereWhereTheReaderIsAllowed(t *testing.T) {
	type fetch struct{ method, site, mode, dest string }
	for f, want := range map[fetch]int{
		{http.MethodGet, "cross-site", "navigate", "document"}:  http.StatusOK,
		{http.MethodHead, "same-site", "navigate", "document"}:  http.StatusOK,
		{http.MethodGet, "cross-site", "navigate", "iframe"}:    http.StatusForbidden,
		{http.MethodGet, "cross-site", "no-cors", "script"}:     http.StatusForbidden,
		{http.MethodGet, "cross-site", "cors", "empty"}:         http.StatusForbidden,
		{http.MethodPost, "cross-site", "navigate", "document"}: http.StatusForbidden,
	} {
		for _, may := range []bool{true, false} {
			page := &debug.Page{Allow: func(*http.Request) bool { return may }}
			r := request(f.method, "/page.js")
			r.Header.Set("Sec-Fetch-Site", f.site)
			r.Header.Set("Sec-Fetch-Mode", f.mode)
			r.Header.Set("Sec-Fetch-Dest", f.dest)
			w := httptest.NewRecorder()
			page.ServeHTTP(w, r)
			if !may {
				want = http.StatusForbidden
			}
			if w.Code != want {
				t.Errorf("%+v, allowed: %v: %d, want %d", f, may, w.Code, want)
			}
		}
	}
}

func TestAllowDecidesAlone(t *testing.T) {
	page := &debug.Page{Allow: func(r *http.Request) bool { return r.Header.Get("Authorization") == "yes" }}
	for given, want := range map[string]int{"yes": http.StatusOK, "": http.StatusForbidden} {
		r := request(http.MethodGet, "/page.js")
		r.RemoteAddr, r.Host = "10.0.0.7:5000", "tools.example"
		r.Header.Set("Authorization", given)
		w := httptest.NewRecorder()
		page.ServeHTTP(w, r)
		if w.Code != want {
			t.Errorf("%q: %d, want %d", given, w.Code, want)
		}
	}
}

func TestWhatIsLargeIsCompressedForWhoeverLikesThat(t *testing.T) {
	page := new(debug.Page)
	want := get(t, page, "/page.js").Body.String()
	for accepts, compressed := range map[string]bool{"gzip, deflate, br": true, "br;q=1.0, gzip;q=0.8": true, "gzip;q=0": false, "br": false} {
		r := request(http.MethodGet, "/page.js")
		r.Header.Set("Accept-Encoding", accepts)
		w := httptest.NewRecorder()
		page.ServeHTTP(w, r)
		if got := w.Header().Get("Content-Encoding") == "gzip"; got != compressed {
			t.Errorf("%q: compressed: %v", accepts, got)
			continue
		}
		body := io.Reader(w.Body)
		if compressed {
			z, err := gzip.NewReader(w.Body)
			if err != nil {
				t.Fatal(err)
			}
			body = z
		}
		if got, err := io.ReadAll(body); err != nil || string(got) != want {
			t.Errorf("%q: %d bytes, %v", accepts, len(got), err)
		}
	}
}

func TestAnUnknownFormatOrDestinationIsSaidToBe(t *testing.T) {
	inLab(t, azure(2), func(l *lab) {
		if w := l.get("?format=xml"); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), `"xml"`) {
			l.Errorf("%d, %s", w.Code, w.Body)
		}
		if w := l.get("?format=json&destination=20.1.2.3:443"); w.Code != http.StatusNotFound {
			l.Errorf("%d, %s", w.Code, w.Body)
		}
	})
}
