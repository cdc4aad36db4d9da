// Command paths prints what natwise knows of the machines between a client and
// its server: limits, timers, and where each number comes from.
//
//	go run ./examples/paths
//	go run ./examples/paths -name azure-app-service
//	go run ./examples/paths -json
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/natwise/natwise/keepalive/netpath"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit status.
func run(args []string, out, errs io.Writer) int {
	flags := flag.NewFlagSet("paths", flag.ContinueOnError)
	flags.SetOutput(errs)
	asJSON := flags.Bool("json", false, "print one JSON object a line")
	name := flags.String("name", "", "print only this profile, with the source of each number")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	profiles := slices.Collect(netpath.All())
	if *name != "" {
		p, err := netpath.Lookup(*name)
		if err != nil {
			fmt.Fprintln(errs, err)
			return 1
		}
		profiles = []netpath.Profile{p}
	}
	var err error
	switch {
	case *asJSON:
		err = printJSON(out, profiles)
	case *name != "":
		err = printSources(out, profiles[0])
	default:
		err = printTable(out, profiles)
	}
	if err != nil {
		fmt.Fprintln(errs, err)
		return 1
	}
	return 0
}

func printTable(w io.Writer, profiles []netpath.Profile) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tLIMITS\tIDLE\tTHEN\tCOUNTS\tHOLD: FIN\tRST\tSYN\tIDLE\tGRADE")
	for _, p := range profiles {
		fmt.Fprintf(table, "%s\t%s\t%s\t%v\t%v\t%s\t%s\t%s\t%s\t%v\n", p.Name, limits(p),
			number(p, "Idle", p.Idle), p.AtIdle, p.Counts,
			number(p, "Hold.FIN", p.Hold.FIN), number(p, "Hold.RST", p.Hold.RST),
			number(p, "Hold.SYN", p.Hold.SYN), number(p, "Hold.Idle", p.Hold.Idle), p.Grade)
	}
	fmt.Fprintln(table, "\nTimes in seconds. ~ marks a cautious guess, ? what nobody knows, - what does not exist.")
	return table.Flush()
}

// number returns d in seconds, marked if it is a guess.
func number(p netpath.Profile, field string, d time.Duration) string {
	switch d {
	case netpath.None:
		return "-"
	case 0:
		return "?"
	}
	return guess(p, field) + strconv.FormatFloat(d.Seconds(), 'f', -1, 64)
}

func guess(p netpath.Profile, field string) string {
	if _, grade := p.Cite(field); grade == netpath.Assumed {
		return "~"
	}
	return ""
}

func limits(p netpath.Profile) string {
	var texts []string
	for i, l := range p.Limits {
		texts = append(texts, fmt.Sprintf("%s%d by %v", guess(p, fmt.Sprintf("Limits[%d]", i)), l.N, l.Scope))
	}
	if texts == nil {
		return "none known"
	}
	return strings.Join(texts, ", ")
}

func printSources(w io.Writer, p netpath.Profile) error {
	_, err := fmt.Fprintln(w, p)
	if err != nil {
		return err
	}
	fields := []string{"Idle", "AtIdle", "Counts", "Hold.FIN", "Hold.RST", "Hold.SYN", "Hold.Idle"}
	for i := range p.Limits {
		fields = append(fields, fmt.Sprintf("Limits[%d]", i))
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, field := range fields {
		source, grade := p.Cite(field)
		fmt.Fprintf(table, "%s\t%v\t%s\n", field, grade, source)
	}
	return table.Flush()
}

// row is a profile in JSON. Seconds: -1 says that there is no such timer, 0 that
// nobody knows it.
type row struct {
	Name    string  `json:"name"`
	Source  string  `json:"source"`
	Grade   string  `json:"grade"`
	Limits  []limit `json:"limits"`
	Idle    float64 `json:"idle_s"`
	AtIdle  string  `json:"at_idle"`
	Counts  string  `json:"counts"`
	FIN     float64 `json:"hold_fin_s"`
	RST     float64 `json:"hold_rst_s"`
	SYN     float64 `json:"hold_syn_s"`
	Silent  float64 `json:"hold_idle_s"`
	Drain   float64 `json:"drain_s"`
	Freezes bool    `json:"freezes"`
	Resumes bool    `json:"resumes"`
	Cites   []cite  `json:"cites"`
}

type limit struct {
	Scope string `json:"scope"`
	N     int    `json:"n"`
}

type cite struct {
	Field  string `json:"field"`
	Source string `json:"source"`
	Grade  string `json:"grade"`
}

func printJSON(w io.Writer, profiles []netpath.Profile) error {
	lines := json.NewEncoder(w)
	for _, p := range profiles {
		if err := lines.Encode(newRow(p)); err != nil {
			return err
		}
	}
	return nil
}

func newRow(p netpath.Profile) row {
	r := row{
		Name: p.Name, Source: p.Source, Grade: p.Grade.String(),
		Limits: []limit{}, Cites: []cite{}, // empty lists, not null
		Idle: seconds(p.Idle), AtIdle: p.AtIdle.String(), Counts: p.Counts.String(),
		FIN: seconds(p.Hold.FIN), RST: seconds(p.Hold.RST), SYN: seconds(p.Hold.SYN), Silent: seconds(p.Hold.Idle),
		Drain: seconds(p.Drain), Freezes: p.Freezes, Resumes: p.Resumes,
	}
	for _, l := range p.Limits {
		r.Limits = append(r.Limits, limit{l.Scope.String(), l.N})
	}
	for _, c := range p.Cites {
		r.Cites = append(r.Cites, cite{c.Field, c.Source, c.Grade.String()})
	}
	return r
}

func seconds(d time.Duration) float64 {
	if d == netpath.None {
		return -1
	}
	return d.Seconds()
}
