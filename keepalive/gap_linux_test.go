package keepalive_test

import (
	"io"
	"testing"
	"time"

	"github.com/natwise/natwise/keepalive"
)

// A gap shorter than this is of no interest; the kernel's clock runs in real time.
const interesting = 1300 * time.Millisecond

func TestASilenceThatAnAnswerEndedWasSurvived(t *testing.T) {
	for name, c := range map[string]struct {
		before, after string // what the far end says before the silence, unread, and after it
		read          func(c *keepalive.Conn) error
		want          bool
	}{
		"by Read":          {"", "x", func(c *keepalive.Conn) error { _, err := c.Read(make([]byte, 1)); return err }, true},
		"by WriteTo":       {"", "x", func(c *keepalive.Conn) error { _, err := io.Copy(io.Discard, c); return err }, true},
		"unread before it": {"x", "", func(c *keepalive.Conn) error { _, err := c.Read(make([]byte, 1)); return err }, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			near, far, _ := watched(t, keepalive.Plan{})
			told := make(chan time.Duration, 1)
			near.WhenSurvived(func(gap time.Duration) { told <- gap })
			talk(t, near, far)
			far.Write([]byte(c.before))
			until(t, "what comes before", func() bool {
				i, err := near.Info()
				return err == nil && i.Unread == len(c.before)
			})
			near.Park(near.Turn())
			until(t, "a silence", func() bool { return near.Quiet() > interesting })
			if _, err := near.Unpark(); err != nil {
				t.Fatal(err)
			}
			if c.after != "" {
				far.Write([]byte(c.after))
				far.CloseWrite()
			}
			if err := c.read(near); err != nil {
				t.Fatal(err)
			}
			select {
			case gap := <-told:
				if !c.want || gap < time.Second || gap > interesting+time.Second {
					t.Errorf("survived %v, want a survival: %t", gap, c.want)
				}
			default:
				if c.want {
					t.Error("nobody was told")
				}
			}
		})
	}
}
