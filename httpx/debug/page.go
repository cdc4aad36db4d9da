package debug

import (
	"compress/gzip"
	_ "embed"
	"encoding/json"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/keepalive"
)

// A Page is an http.Handler that shows what a ledger holds, live. The zero Page shows
// dialer.DefaultLedger, to this machine alone. It registers itself nowhere, works under any
// path that ends in a slash, and may be asked by many goroutines. Set its fields before the
// first request, not after; it must not be copied.
//
// It looks once a second, for all viewers together, from the first request until a quarter of
// an hour after the last, so that whoever comes back sees what happened meanwhile. Close is
// for who cannot wait for that. At most 16 see each second; those beyond see every fifth. A
// server that is shut down (http.Server.Shutdown) does not wait for them. Behind a middleware
// that lets nobody flush, a viewer asks anew each second.
type Page struct {
	// Ledger is whose ports are shown. Nil: dialer.DefaultLedger.
	Ledger *dialer.Ledger

	// Learner says how long paths remember, as those dialers have it that name this Learner.
	// Nil: what the ledger itself has learned or assumes.
	Learner *keepalive.Learner

	// Allow says who may see the page. Nil: who comes from a loopback address and asks for
	// localhost, which behind a proxy on the same machine is everybody. Another site's scripts
	// may not, though its links may lead here; behind a name that its owner can point anywhere,
	// check the Host too.
	Allow func(*http.Request) bool

	recorder recorder
}

var _ http.Handler = (*Page)(nil)

//go:embed page.html
var pageHTML []byte

//go:embed page.css
var pageCSS []byte

//go:embed page.js
var pageJS []byte

//go:embed page.svg
var pageSVG []byte

// files are what the page is made of, by the last part of their path.
var files = map[string]struct {
	kind string
	body []byte
}{
	"page.css": {"text/css; charset=utf-8", pageCSS},
	"page.js":  {"text/javascript; charset=utf-8", pageJS},
	"page.svg": {"image/svg+xml", pageSVG},
}

// policy lets the page have its own files and its own events, and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
	"frame-ancestors 'none'; base-uri 'none'; form-action 'none'"

// ServeHTTP answers with the page, its files, its events, or one of its twins.
func (p *Page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	if why := p.refuses(r); why != "" {
		http.Error(w, why, http.StatusForbidden)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "this page is only for looking at", http.StatusMethodNotAllowed)
		return
	}
	if p.closed() {
		http.Error(w, "this page is closed", http.StatusServiceUnavailable)
		return
	}
	_, last := path.Split(r.URL.Path)
	if file, ok := files[last]; ok {
		send(w, r, file.kind, file.body)
		return
	}
	switch last {
	case "":
		p.serve(w, r)
	case "events":
		p.stream(w, r)
	default:
		if !couldBeThePage(r, last) {
			http.NotFound(w, r)
			return
		}
		redirect(w, r, last)
	}
}

// couldBeThePage reports whether the page may be meant, without its slash: not by what looks
// like a file of it, nor by what a browser does not want to show.
func couldBeThePage(r *http.Request, last string) bool {
	dest := r.Header.Get("Sec-Fetch-Dest")
	return !strings.Contains(last, ".") && (dest == "" || dest == "document")
}

// redirect adds the slash that relative addresses need. The path as the browser has it may
// be longer than the one that came here, of which only the end is known.
func redirect(w http.ResponseWriter, r *http.Request, last string) {
	to := url.URL{Path: "./" + last + "/", RawQuery: r.URL.RawQuery}
	w.Header().Set("Location", to.String())
	w.WriteHeader(http.StatusMovedPermanently)
}

// serve answers with the page or a twin.
func (p *Page) serve(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	format, destination := query.Get("format"), query.Get("destination")
	if format == "" {
		p.seen()
		send(w, r, "text/html; charset=utf-8", pageHTML)
		return
	}
	var shown any
	if s := p.now(); destination == "" {
		shown = s.state
	} else if d := p.detail(s, destination); d != nil {
		shown = d
	} else {
		http.Error(w, "nothing is booked there", http.StatusNotFound)
		return
	}
	switch format {
	case "json":
		body, err := json.Marshal(shown)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		send(w, r, "application/json", append(body, '\n'))
	case "text", "wide":
		send(w, r, "text/plain; charset=utf-8", text(shown, format == "wide"))
	default:
		http.Error(w, "format is "+strconv.Quote(format)+", neither json, text nor wide", http.StatusBadRequest)
	}
}

// send answers with body, compressed where that is welcome.
func send(w http.ResponseWriter, r *http.Request, kind string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", kind)
	h.Set("Vary", "Accept-Encoding")
	if !takesGzip(r) {
		h.Set("Content-Length", strconv.Itoa(len(body)))
		w.Write(body)
		return
	}
	h.Set("Content-Encoding", "gzip")
	z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed) // the level is one
	z.Write(body)
	z.Close()
}

func takesGzip(r *http.Request) bool {
	for each := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		name, quality, _ := strings.Cut(strings.TrimSpace(each), ";")
		if strings.TrimSpace(name) == "gzip" && strings.TrimSpace(quality) != "q=0" {
			return true
		}
	}
	return false
}

func (p *Page) ledger() *dialer.Ledger {
	if p.Ledger != nil {
		return p.Ledger
	}
	return dialer.DefaultLedger
}
