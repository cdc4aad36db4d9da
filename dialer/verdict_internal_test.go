package dialer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/natwise/natwise/keepalive/netpath"
)

func TestEvidenceIsJudged(t *testing.T) {
	const none = netpath.None
	long := 5 * time.Second
	for name, test := range map[string]struct {
		evidence
		want Verdict
		says string
	}{
		"one SYN": {evidence{dials: 1, syns: 1, over: 300 * time.Millisecond, loss: 0.01, limit: none}, Unknown, "1 SYN not answered within 300ms"},
		"three SYNs on a path that loses a third": {evidence{dials: 1, syns: 3, after: 1, over: long, loss: 0.36, counted: true, held: 20, same: census{alive: 20}, limit: none}, Unknown, ""},
		"nobody answers":                                     {evidence{dials: 2, syns: 6, after: 2, over: long, loss: 0.05, limit: none}, PathDown, "no connection to there is left"},
		"nobody answers, elsewhere all":                      {evidence{dials: 2, syns: 6, after: 2, over: long, loss: 0.05, others: census{alive: 3}, limit: none}, PathDown, "those to elsewhere live"},
		"connections die too":                                {evidence{dials: 2, syns: 6, after: 2, over: long, loss: 0.05, counted: true, held: 100, others: census{alive: 4}, same: census{dead: 4}, limit: 128}, PathDown, "of 4 connections to there 0 live"},
		"connections die, and packets got lost before":       {evidence{dials: 1, syns: 2, over: long, loss: 0.3, same: census{dead: 3, alive: 1}, limit: none}, PathDown, ""},
		"everything dies":                                    {evidence{dials: 2, syns: 6, after: 2, over: long, loss: 0.05, counted: true, held: 128, others: census{dead: 4}, same: census{dead: 4}, limit: 128}, PathDown, ""},
		"new ones only":                                      {evidence{dials: 2, syns: 6, after: 2, over: long, loss: 0.05, counted: true, held: 60, others: census{alive: 4}, same: census{alive: 4}, limit: none}, Exhausted, "60 ports held, those to elsewhere live"},
		"new ones only, and few":                             {evidence{dials: 2, syns: 6, after: 2, over: long, loss: 0.05, counted: true, held: 2, others: census{alive: 4}, same: census{alive: 2}, limit: none}, Unknown, "takes no more"},
		"new ones only, of what no NAT counts":               {evidence{dials: 2, syns: 6, after: 2, over: long, loss: 0.05, same: census{alive: 4}, limit: none}, Unknown, "takes no more"},
		"a small limit":                                      {evidence{dials: 2, syns: 6, after: 2, over: long, loss: 0.05, counted: true, held: 4, same: census{alive: 2}, limit: 16}, Exhausted, ""},
		"all ports cool":                                     {evidence{dials: 2, syns: 6, after: 2, over: long, loss: 0.05, counted: true, held: 126, others: census{alive: 2}, limit: 128}, Exhausted, ""},
		"more than ever cool":                                {evidence{dials: 2, syns: 6, after: 2, over: long, loss: 0.05, counted: true, held: 90, most: 90, others: census{alive: 2}, limit: none}, Exhausted, ""},
		"less than ever cool":                                {evidence{dials: 2, syns: 6, after: 2, over: long, loss: 0.05, counted: true, held: 80, most: 90, others: census{alive: 2}, limit: none}, PathDown, ""},
		"all cool, and nobody to ask":                        {evidence{dials: 2, syns: 6, after: 2, over: long, loss: 0.05, counted: true, held: 90, most: 90, limit: none}, PathDown, ""},
		"a try beyond what was learned":                      {evidence{dials: 1, syns: 2, after: 1, over: long, loss: 0.05, counted: true, held: 16, same: census{alive: 4}, limit: 16, beyond: true}, Exhausted, ""},
		"one of three hangs, on a path that loses a third":   {evidence{dials: 10, syns: 20, after: 5, answered: 100, over: long, loss: 0.36, counted: true, held: 100, same: census{alive: 4}, limit: none}, Unknown, ""},
		"one of three hangs, on a path that loses nothing":   {evidence{dials: 10, syns: 20, after: 5, answered: 30, over: long, loss: 0.01, counted: true, held: 100, same: census{alive: 4}, limit: none}, Exhausted, ""},
		"some are answered, and all else cools":              {evidence{dials: 10, syns: 20, after: 5, answered: 10, over: long, loss: 0.01, counted: true, held: 100, limit: none}, Exhausted, "while 10 dials to there were"},
		"what hangs was sent before the others came to life": {evidence{dials: 3, syns: 12, over: long, loss: 0.01, counted: true, held: 100, same: census{alive: 4}, limit: none}, Unknown, ""},
		"SYNs come back":                                     {evidence{dials: 1, syns: 3, over: time.Second, loss: 0.05, limit: none, rolled: rolled{watched: 3, came: 3, quiet: 3}, serves: []uint16{80}}, Hairpin, "3 of 3 SYNs came back to this host, which listens on 80"},
		"one has come back":                                  {evidence{dials: 1, syns: 3, over: time.Second, loss: 0.05, limit: none, rolled: rolled{watched: 1, came: 1, quiet: 1}, serves: []uint16{80}}, Unknown, ""},
		"few of many come back":                              {evidence{dials: 2, syns: 9, after: 2, over: long, loss: 0.05, limit: none, rolled: rolled{watched: 8, came: 2}, serves: []uint16{80}}, PathDown, ""},
		"SYNs come back, as others' do all the time":         {evidence{dials: 2, syns: 9, over: long, loss: 0.05, limit: none, rolled: rolled{watched: 4, came: 4, quiet: 4, others: 40}, serves: []uint16{80}}, PathDown, ""},
		"SYNs come back, as others' do sometimes":            {evidence{dials: 2, syns: 9, over: long, loss: 0.05, limit: none, rolled: rolled{watched: 4, came: 4, quiet: 4, others: 2}, serves: []uint16{80}}, Hairpin, ""},
		"no other backend":                                   {evidence{dials: 1, syns: 9, over: time.Second, loss: 0.05, limit: none, rolled: rolled{watched: 7, came: 7, quiet: 7}}, Hairpin, "no other backend"},
		"another source port always works":                   {evidence{dials: 1, syns: 2, after: 1, over: long, loss: 0.05, limit: none, rolled: rolled{long: 3, fresh: 3, through: true}, serves: []uint16{22, 8080}}, Hairpin, "SYNs of 3 source ports never answered"},
		"another source port works, but nobody serves":       {evidence{dials: 2, syns: 6, after: 2, over: long, loss: 0.05, limit: none, rolled: rolled{long: 3, fresh: 3, through: true}}, PathDown, ""},
		"a repeated SYN was answered":                        {evidence{dials: 1, syns: 2, after: 1, over: long, loss: 0.05, limit: none, rolled: rolled{long: 3, fresh: 3, late: 2, through: true}, serves: []uint16{80}}, Unknown, ""},
	} {
		v, says := test.judge()
		if v != test.want || !strings.Contains(says, test.says) {
			t.Errorf("%s: %v (%s), want %v (%s)", name, v, says, test.want, test.says)
		}
	}
}

func TestErrorsExplainThemselves(t *testing.T) {
	op := func(call string, errno syscall.Errno) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError(call, errno)}
	}
	for _, test := range []struct {
		err  error
		want Verdict
	}{
		{op("connect", syscall.ECONNREFUSED), PeerDown},
		{op("connect", syscall.ECONNRESET), PeerDown},
		{op("connect", syscall.EHOSTUNREACH), Unreachable},
		{op("connect", syscall.ENETUNREACH), Unreachable},
		{op("connect", syscall.EADDRNOTAVAIL), LocalPorts},
		{op("bind", syscall.EADDRINUSE), LocalPorts},
		{op("bind", syscall.EADDRNOTAVAIL), Unknown}, // no such address
		{op("socket", syscall.EMFILE), Unknown},
		{&net.DNSError{Err: "no such host", Name: "a.example"}, DNS},
		{&BudgetError{Err: context.DeadlineExceeded}, Exhausted},
		{context.Canceled, Unknown},
		{errors.Join(&judged{Unknown, "", errNoAnswer}, fmt.Errorf("b: %w", &judged{PeerDown, "", errNoAnswer})), PeerDown},
	} {
		if _, _, ok := told(test.err); !ok && VerdictOf(test.err) != Unknown {
			t.Errorf("%v may have happened on a connection, and is called %v", test.err, VerdictOf(test.err))
		}
		e := dialError("tcp", "a.example:1", test.err)
		if e.Verdict != test.want || VerdictOf(fmt.Errorf("get: %w", e)) != test.want {
			t.Errorf("%v: %v, want %v", test.err, e.Verdict, test.want)
		}
		if test.want != Unknown && !strings.Contains(e.Error(), test.want.String()) {
			t.Errorf("%v does not say that it is %v", e, test.want)
		}
	}
}
