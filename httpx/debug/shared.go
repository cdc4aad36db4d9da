package debug

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/natwise/natwise/dialer"
	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A shared budget is one engine's, for one account or for all of them together.
type shared struct {
	Engine      string   `json:"engine"`
	Sharers     int      `json:"sharers"` // this process included
	Limit       int      `json:"limit"`   // of each account, for all that share
	Floor       int      `json:"floor"`   // may be held without asking
	Leased      int      `json:"leased"`  // beyond the floor
	Held        int      `json:"held"`    // by this process
	Quarantined int      `json:"quarantined"`
	Age         *seconds `json:"lease_age_seconds"` // null: there is no server to ask
	Renewals    uint64   `json:"renewals"`
	Failures    uint64   `json:"failures"`
	Trouble     *illness `json:"trouble"` // null: it is not degraded
}

// An illness is what is to be said of an engine that is degraded.
type illness struct {
	What     string `json:"what"`
	Do       string `json:"what_to_do"`
	Evidence string `json:"evidence"`
}

// remedies say of each engine what to do.
var remedies = map[string]string{
	"host":  "See whether the budget's directory is there, this user's and writable, and the disk not full.",
	"redis": "If it learns, wait: that ends by itself. Else see whether Redis runs and can be reached from here, and whether more instances share than were planned for. It is asked again and again: nothing has to be restarted.",
}

func sharedOf(reports []budget.Report) []shared {
	all := make([]shared, 0, len(reports))
	for _, r := range reports {
		s := shared{
			Engine: r.Engine, Sharers: r.Sharers, Limit: r.Limit, Floor: r.Floor, Leased: r.Leased, Held: r.Held, Quarantined: r.Quarantined,
			Renewals: r.Renewals, Failures: r.Failures,
		}
		if r.Age > 0 {
			s.Age = some(r.Age)
		}
		if r.Degraded != "" {
			s.Trouble = &illness{
				What: "This process is lent no port beyond its floor.",
				Do:   remedies[r.Engine], Evidence: r.Degraded,
			}
		}
		all = append(all, s)
	}
	return all
}

// reportsOf are those of the ledger's budget, about all accounts together.
func reportsOf(l *dialer.Ledger) []budget.Report {
	if e, ok := l.Budget.(budget.Engine); ok {
		return e.Reports(netpath.Key{})
	}
	return nil
}

const allTogether = " to each destination; all together"

// text is "shared by host with 7 others, 128 ports: floor 6, leased 10, held 4, kept 12".
func (s shared) text(b *bytes.Buffer, of string) {
	fmt.Fprintf(b, "shared by %s with %s, %d ports%s: %s\n", plain(s.Engine), s.others(), s.Limit, of, s.parts())
	if s.Trouble != nil {
		fmt.Fprintf(b, "  degraded: %s\n  evidence: %s\n", s.Trouble.What, cut(s.Trouble.Evidence, 4*longest))
		if s.Trouble.Do != "" {
			fmt.Fprintf(b, "  to do: %s\n", s.Trouble.Do)
		}
	}
}

func (s shared) others() string {
	if s.Sharers == 2 {
		return "1 other"
	}
	return fmt.Sprintf("%d others", max(0, s.Sharers-1))
}

func (s shared) parts() string {
	parts := []string{
		fmt.Sprintf("floor %d", s.Floor), fmt.Sprintf("leased %d", s.Leased),
		fmt.Sprintf("held %d", s.Held), fmt.Sprintf("kept %d", s.Quarantined),
	}
	if s.Age != nil {
		parts = append(parts, fmt.Sprintf("lease %s old", short(s.Age)))
	}
	if s.Failures > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d calls failed", s.Failures, s.Renewals+s.Failures))
	}
	return strings.Join(parts, ", ")
}
