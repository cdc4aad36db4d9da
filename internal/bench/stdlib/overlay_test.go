package stdlib

import (
	"bytes"
	"encoding/json"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// rewritten returns the body of a function of the tests over natwise.
func rewritten(t *testing.T, body string) string {
	t.Helper()
	const before, after = "package http_test\nfunc f() {\n", "\n}\n"
	out, _, err := rewrite("f_test.go", []byte(before+body+after))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(strings.TrimPrefix(string(out), before), after)
}

func TestAClientsTransportIsFoundUnderItsAdapter(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{"c.Transport.(*Transport).MaxConnsPerHost = 1", "natwiseUnder(c.Transport).MaxConnsPerHost = 1"},
		{"x := ts.Client().Transport.(*http.Transport)", "x := natwiseUnder(ts.Client().Transport)"},
		{"c.Transport.(*Transport).CloseIdleConnections()", "natwiseOver(natwiseUnder(c.Transport)).CloseIdleConnections()"},
		{"tr := c.Transport.(*Transport); tr.RoundTrip(req)", "tr := natwiseUnder(c.Transport); natwiseOver(tr).RoundTrip(req)"},
		{"tr := cst.tr; c := Client{Transport: tr}", "tr := cst.tr; c := Client{Transport: natwiseOver(tr)}"},
		{"cst.tr.RoundTrip(req)", "natwiseOver(cst.tr).RoundTrip(req)"},
		{"x := c.Transport.(*recordingTransport)", "x := c.Transport.(*recordingTransport)"},
		{"rt.RoundTrip(req)", "rt.RoundTrip(req)"},
	} {
		if got := rewritten(t, c.body); got != c.want {
			t.Errorf("%s\nbecame %s\nwant   %s", c.body, got, c.want)
		}
	}
}

func TestATestsOwnTransportIsReplacedWhereNatwiseHasAllThatItUses(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{
			"tr := &Transport{MaxConnsPerHost: 1}; tr.Dial = d; tr.RoundTrip(req)",
			"tr := &Transport{MaxConnsPerHost: 1}; tr.Dial = d; natwiseOver(tr).RoundTrip(req)",
		},
		{"tr := new(Transport); tr.RoundTrip(req)", "tr := new(Transport); natwiseOver(tr).RoundTrip(req)"},
		{"c := &Client{Transport: &Transport{Proxy: p}}", "c := &Client{Transport: natwiseOver(&Transport{Proxy: p})}"},
		{"tr := &Transport{MaxIdleConns: 1}; tr.RoundTrip(req)", ""},
		{"tr := &Transport{}; tr.RegisterProtocol(p); tr.RoundTrip(req)", ""},
		{"tr := &Transport{}; configure(tr); tr.RoundTrip(req)", ""},
		{"c := &Client{Transport: &Transport{TLSNextProto: p}}", ""},
	} {
		if c.want == "" {
			c.want = c.body
		}
		if got := rewritten(t, c.body); got != c.want {
			t.Errorf("%s\nbecame %s\nwant   %s", c.body, got, c.want)
		}
	}
}

func TestHooksAreHeardByTheAdapter(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{"defer SetPendingDialHooks(a, nil)", "defer natwiseSetPendingDialHooks(SetPendingDialHooks, a, nil)"},
		{"ExportCloseTransportConnsAbruptly(x)", "natwiseCloseConnsAbruptly(x)"},
		{"tr.CancelRequest(req)", "natwiseOver(tr).CancelRequest(req)"},
		{"want := fmt.Sprintf(`Dial\nRetried.\n`)", "want := natwiseWithoutRetried(fmt.Sprintf(`Dial\nRetried.\n`))"},
		{"x := c.(*transportDialTesterConn)", "x := natwiseDialed(c).(*transportDialTesterConn)"},
	} {
		if got := rewritten(t, c.body); !strings.HasSuffix(got, c.want) {
			t.Errorf("%s\nbecame %s\nwant   %s", c.body, got, c.want)
		}
	}
}

func TestFilesOfPackageHTTPItselfAreLeftAlone(t *testing.T) {
	source := []byte("package http\nfunc f() { x.Transport.(*Transport).Proxy = nil }\n")
	out, found, err := rewrite("export_test.go", source)
	if err != nil || len(found) > 0 || !bytes.Equal(out, source) {
		t.Errorf("%s, %v, %v", out, found, err)
	}
}

func testsOfThisGo(t *testing.T) string {
	t.Helper()
	g, err := thisGo(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return g.tests()
}

func TestTheTestsOfThisGoAreRecognizedAndKeepTheirLines(t *testing.T) {
	file, err := writeOverlay(testsOfThisGo(t), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var o overlay
	if err := json.Unmarshal(text, &o); err != nil {
		t.Fatal(err)
	}
	for path, changed := range o.Replace {
		out, err := os.ReadFile(changed)
		if err != nil {
			t.Fatal(err)
		}
		f, err := parser.ParseFile(token.NewFileSet(), changed, out, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		if f.Name.Name != testPackage {
			t.Errorf("%s is of package %s", filepath.Base(path), f.Name.Name)
		}
		source, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			continue // the adapter
		}
		if was, is := bytes.Count(source, []byte("\n")), bytes.Count(out, []byte("\n")); was != is {
			t.Errorf("%s had %d lines and has %d", filepath.Base(path), was, is)
		}
	}
	if len(o.Replace) < 6 {
		t.Errorf("%d files in the overlay", len(o.Replace))
	}
}

func TestTestsThatAreNotAsTheyWereAreNoticed(t *testing.T) {
	found := map[rule]int{
		under: 80, over: 40, client: 12, pending: 6, cancels: 4,
		helper: 1, global: 1, dialed: 1, severed: 1, retried: 1,
	}
	if err := expected(found); err != nil {
		t.Fatal(err)
	}
	for r, n := range found {
		for _, other := range []int{0, 2} {
			found[r] = other
			err := expected(found)
			if n > 1 && other == 2 {
				continue // less than there were, and not none: it depends
			}
			if err == nil || !strings.Contains(err.Error(), string(r)) {
				t.Errorf("%d of %q: %v", other, r, err)
			}
		}
		found[r] = n
	}
}

func TestADifferenceIsOfATestThatThereIs(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(testsOfThisGo(t), "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, path := range files {
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(source)
	}
	for test, reason := range Differences {
		if !strings.Contains(all.String(), "\nfunc "+test+"(") {
			t.Errorf("there is no %s", test)
		}
		if len(reason) < 40 {
			t.Errorf("%s: %q is no reason", test, reason)
		}
	}
}
