package debug

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
)

// mostFrozen is how many connections a frozen page has details of, the fullest destinations'.
const mostFrozen = 4096

// frozen is what a page needs that cannot ask.
type frozen struct {
	State   state              `json:"state"`
	Details map[string]*detail `json:"details"` // by destination
}

// WriteHTML writes the page as it is now, in one file that needs no network: for a report, or
// an issue. It has the past that Record, or a viewer, has caused to be kept.
func (p *Page) WriteHTML(w io.Writer) error {
	p.recorder.mu.Lock()
	s := p.freshLocked()
	p.recorder.mu.Unlock()
	f := frozen{s.state, make(map[string]*detail)}
	connections := 0
	for _, r := range s.state.Destinations {
		if connections += min(r.Ports.Taken, mostConnections); connections > mostFrozen {
			break
		}
		f.Details[r.Destination] = p.detail(s, r.Destination)
	}
	data, err := json.Marshal(f) // which leaves no < in a string
	if err != nil {
		return err
	}
	html := pageHTML
	for _, part := range []struct{ link, inline string }{
		{`<link rel="icon" href="page.svg">`, fmt.Sprintf(`<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src %s; style-src %s">`, hash(pageJS), hash(pageCSS))},
		{`<link rel="stylesheet" href="page.css">`, "<style>" + string(pageCSS) + "</style>"},
		{`<script src="page.js" defer></script>`, `<script type="application/json" id="frozen">` + string(data) + "</script>"},
		{`</body>`, "<script>" + string(pageJS) + "</script>\n</body>"},
	} {
		html = bytes.Replace(html, []byte(part.link), []byte(part.inline), 1)
	}
	_, err = w.Write(html)
	return err
}

// hash names an inline script or style, for the policy that lets no other in.
func hash(text []byte) string {
	sum := sha256.Sum256(text)
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
