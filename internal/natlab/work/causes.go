package work

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Causes are errors, and how often each came. The zero Causes is ready to use, by one
// goroutine at a time.
type Causes map[string]int

// unique are ports, durations and numbers, and what http.Client says of the URL: they make
// two errors of the same cause.
var unique = regexp.MustCompile(`:\d{4,5}\b|\b[\d.]+[mµ]?s\b|\b\d+ |"[^"]*": `)

// Add counts err.
func (c *Causes) Add(err error) {
	if *c == nil {
		*c = make(Causes)
	}
	(*c)[unique.ReplaceAllString(err.Error(), "")]++
}

// commonest is how many causes are told.
const commonest = 4

// Err returns an error that tells the commonest, for Measurement.Said. Nil: there was none.
func (c Causes) Err() error {
	if len(c) == 0 {
		return nil
	}
	texts := slices.SortedFunc(maps.Keys(c), func(a, b string) int { return cmp.Or(c[b]-c[a], cmp.Compare(a, b)) })
	var said []string
	for _, text := range texts[:min(commonest, len(texts))] {
		said = append(said, fmt.Sprintf("%d x %s", c[text], text))
	}
	if more := len(texts) - commonest; more > 0 {
		said = append(said, fmt.Sprintf("and %d others", more))
	}
	return errors.New(strings.Join(said, "; "))
}
