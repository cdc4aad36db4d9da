package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
)

// count has the gateway count the client's packets that match, under a name, as
// they come, and those of them that are not lost on their way here (Lab.Lose,
// Lab.DropNext), under the name and "_passed".
func (st *stage) count(name, match string) error {
	rules := "add table ip liveness; " +
		"add chain ip liveness sent { type filter hook prerouting priority raw - 10 ; }; " +
		"add chain ip liveness passed { type filter hook prerouting priority raw + 10 ; }; "
	for chain, counter := range map[string]string{"sent": name, "passed": name + "_passed"} {
		rules += fmt.Sprintf("add counter ip liveness %s; ", counter) +
			fmt.Sprintf(`add rule ip liveness %s iifname "inside" %s counter name %s; `, chain, match, counter)
	}
	return st.nft(rules)
}

// countSYNs counts SYNs to where a line leads.
func (st *stage) countSYNs(name string, l line) error {
	at := l.remote()
	return st.count(name, fmt.Sprintf("ip daddr %s tcp dport %d tcp flags & (syn|ack) == syn", at.Addr(), at.Port()))
}

// counted is how many packets were counted under each name.
func (st *stage) counted() (map[string]int, error) {
	out, err := st.Exec(context.Background(), "gateway", "nft", "list", "counters", "table", "ip", "liveness")
	if err != nil {
		return nil, err
	}
	return parseCounters(out)
}

var counterLine = regexp.MustCompile(`counter (\w+) \{\s*packets (\d+)`)

// parseCounters reads what nft prints of counters.
func parseCounters(out string) (map[string]int, error) {
	counts := make(map[string]int)
	for _, found := range counterLine.FindAllStringSubmatch(out, -1) {
		n, err := strconv.Atoi(found[2])
		if err != nil {
			return nil, err
		}
		counts[found[1]] = n
	}
	return counts, nil
}
