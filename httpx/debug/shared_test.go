package debug_test

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/natwise/natwise/dialer/budget"
	"github.com/natwise/natwise/keepalive/netpath"
)

// A lent budget is one of this process, and says that it is shared: of one account a third
// of what it says of all together.
type lent struct {
	*budget.Limit
	all budget.Report
}

var _ budget.Engine = lent{}

func (b lent) Reports(key netpath.Key) []budget.Report {
	r := b.all
	if key != (netpath.Key{}) {
		for _, n := range []*int{&r.Floor, &r.Leased, &r.Held, &r.Quarantined} {
			*n /= 3
		}
	}
	return []budget.Report{r}
}

func (lent) SetHold(time.Duration) {}

func lentByHost() lent {
	return lent{budget.PerKey(128), budget.Report{Engine: "host", Sharers: 8, Limit: 128, Floor: 18, Leased: 30, Held: 12, Quarantined: 36, Remembers: true}}
}

func lentByRedis(degraded string) lent {
	return lent{budget.PerKey(128), budget.Report{
		Engine: "redis", Sharers: 2, Limit: 1000, Floor: 75, Held: 12, Age: 12 * time.Second, Degraded: degraded, Renewals: 40, Failures: 3,
	}}
}

// A share is what is looked at of one.
type share struct {
	Engine                                           string
	Sharers, Limit, Floor, Leased, Held, Quarantined int
	Age                                              *float64 `json:"lease_age_seconds"`
	Renewals, Failures                               int
	Trouble                                          *struct {
		What, Evidence string
		Do             string `json:"what_to_do"`
	}
}

// shares are those of the whole ledger, or of one destination.
func (l *lab) shares(query string) (s []share) {
	l.Helper()
	time.Sleep(300 * time.Millisecond)
	var of struct{ Shared []share }
	if err := json.Unmarshal(l.get("?format=json"+query).Body.Bytes(), &of); err != nil {
		l.Fatal(err)
	}
	if of.Shared == nil {
		l.Error("it is not said that nobody shares")
	}
	return of.Shared
}

func TestWithWhomThePortsAreSharedIsShown(t *testing.T) {
	inLab(t, azure(128), func(l *lab) {
		l.ledger.Budget = budget.All(lentByHost(), lentByRedis(""))
		l.raw("20.1.2.3:443")
		l.dial("20.1.2.3:443")
		all, one := l.shares(""), l.shares("&destination=20.1.2.3:443")
		if len(all) != 2 || all[0].Engine != "host" || all[0].Sharers != 8 || all[0].Limit != 128 || all[0].Floor != 18 || all[0].Leased != 30 || all[0].Held != 12 || all[0].Quarantined != 36 {
			t.Errorf("of all destinations: %+v", all)
		}
		if len(one) != 2 || one[0].Limit != 128 || one[0].Floor != 6 || one[0].Leased != 10 || one[0].Held != 4 || one[0].Quarantined != 12 {
			t.Errorf("of one: %+v", one)
		}
		if all[0].Age != nil || all[1].Age == nil || *all[1].Age != 12 || all[1].Renewals != 40 || all[1].Failures != 3 || all[1].Trouble != nil {
			t.Errorf("of the server: %+v", all)
		}
		for query, want := range map[string]string{
			"": `(?m)^shared by host with 7 others, 128 ports to each destination; all together: floor 18, leased 30, held 12, kept 36$` +
				"\n" + `^shared by redis with 1 other, 1000 ports to each destination; all together: floor 75, leased 0, held 12, kept 0, lease 12s old, 3 of 43 calls failed$`,
			"&destination=20.1.2.3:443": `(?m)^shared by host with 7 others, 128 ports: floor 6, leased 10, held 4, kept 12$`,
		} {
			if text := l.get("?format=text" + query).Body.String(); !regexp.MustCompile(want).MatchString(text) {
				t.Errorf("the text says\n%s\nwant\n%s", text, want)
			}
		}
	})
}

func TestADegradedEngineIsShownWithWhatToDo(t *testing.T) {
	inLab(t, azure(128), func(l *lab) {
		l.ledger.Budget = lentByRedis("no answer for 12s\x1b[31m")
		all := l.shares("")
		if len(all) != 1 || all[0].Trouble == nil || !strings.Contains(all[0].Trouble.What, "no port beyond its floor") ||
			!strings.Contains(all[0].Trouble.Do, "Redis runs") || all[0].Trouble.Evidence != "no answer for 12s\x1b[31m" {
			t.Fatalf("%+v", all)
		}
		text := l.get("?format=text").Body.String()
		for _, line := range []string{"\n  degraded: " + all[0].Trouble.What, "\n  evidence: no answer for 12s\ufffd[31m\n", "\n  to do: " + all[0].Trouble.Do} {
			if !strings.Contains(text, line) {
				t.Errorf("the text does not say %q:\n%s", line, text)
			}
		}
	})
}

func TestABudgetOfThisProcessIsNotShared(t *testing.T) {
	inLab(t, azure(128), func(l *lab) {
		l.ledger.Budget = budget.PerKey(64)
		l.raw("20.1.2.3:443")
		l.dial("20.1.2.3:443")
		if all, one := l.shares(""), l.shares("&destination=20.1.2.3:443"); len(all) > 0 || len(one) > 0 {
			t.Errorf("%+v, %+v", all, one)
		}
		if text := l.get("?format=text").Body.String(); strings.Contains(text, "shared") {
			t.Errorf("the text says\n%s", text)
		}
	})
}
