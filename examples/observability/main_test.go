package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestWithJSONOneLineAndNothingElseIsPrinted(t *testing.T) {
	r := mustRun(t, "-json", "-for", "4s") // nobody waits longer than 3 s for an answer to a SYN
	if r.Scenario != "observability" || r.Ports != 32 || r.Seconds < 4 || r.Status != "ok" || r.Bound != "" || len(r.Scenes) != len(scenes) {
		t.Fatalf("got %+v", r)
	}
	for i, got := range r.Scenes {
		if got.Name != scenes[i].name || got.Sent == 0 || got.Sent != got.OK+got.Refused+got.Failed {
			t.Errorf("got %+v", got)
		}
		if want := got.Name == "down" || got.Name == "mute"; (got.OK == 0) != want {
			t.Errorf("%d of %d requests of scene %s were answered", got.OK, got.Sent, got.Name)
		}
	}
}

func TestOneSceneAloneIsPlayed(t *testing.T) {
	r := mustRun(t, "-json", "-for", "1s", "-only", "db") // a wave of six takes 150 ms, and the machine may be busy
	if len(r.Scenes) != 1 || r.Scenes[0].Name != "db" || r.Scenes[0].OK < 6 {
		t.Errorf("got %+v", r)
	}
}

func TestWithoutJSONThereIsATable(t *testing.T) {
	status, out, errs := runFor(t.Context(), "-for", "200ms", "-only", "down")
	const want = "  scene  sent  ok  refused  failed\n   down     1   0        0       1\n"
	if status != 0 || out != want || !strings.Contains(errs, "observability: metrics at http://127.0.0.1:") {
		t.Errorf("status %d, output\n%s, error %q", status, out, errs)
	}
}

func TestAnInterruptEndsItAndIsNoFailure(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	start := time.Now()
	if status, out, errs := runFor(ctx, "-json"); status != 0 || !strings.Contains(out, `"status":"ok"`) {
		t.Errorf("status %d: %s%s", status, out, errs)
	}
	if took := time.Since(start); took > soon {
		t.Errorf("it took %v", took)
	}
}

// A process of its own: a live page that was looked at goes on recording for a quarter of an
// hour.
func TestTheLivePageShowsTheServiceUntilAnInterrupt(t *testing.T) {
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, "-only", "api")
	cmd.Env = append(cmd.Environ(), asCommand+"=1")
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(said).ReadString('\n')
	_, page, found := strings.Cut(strings.TrimSpace(line), "the live page at ")
	if err != nil || !found {
		t.Fatalf("it says %q (error %v)", line, err)
	}
	for url, want := range map[string]string{
		page + "?format=text": regexp.QuoteMeta(addressOf("api")),
		strings.Replace(page, "debug/natwise/", "metrics", 1): `outcome="reused".*} [1-9]`, // two requests were answered
	} {
		for tooLate := time.Now().Add(soon); !regexp.MustCompile(want).MatchString(fetch(t, url)); time.Sleep(10 * time.Millisecond) {
			if time.Now().After(tooLate) {
				t.Fatalf("%s: no %s in\n%s", url, want, fetch(t, url))
			}
		}
	}
	cmd.Process.Signal(os.Interrupt)
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ends with %v", err)
	}
}

func TestAHealthySceneInWhichARequestFailsIsMissed(t *testing.T) {
	at := []scene{{name: "api", healthy: true}, {name: "rush"}, {name: "leak"}}
	r := newReport(time.Second, at, []result{{Sent: 3, OK: 2, firstErr: io.ErrUnexpectedEOF}, {Sent: 3, Refused: 3}, {}})
	if r.Status != "missed" || r.Bound != "api: ok 2 of 3 (the first that was not: unexpected EOF); leak: nothing was sent" {
		t.Errorf("%s: %s", r.Status, r.Bound)
	}
}

func TestABadFlagIsNamedWithItsValue(t *testing.T) {
	for args, want := range map[string]string{
		"-for -1s":             "-for -1s: must not be negative",
		"-for long":            `invalid value "long" for flag -for: parse error`,
		"-only crush":          `-only "crush": it is one of api, db, rush, churn, holes, leak, down, mute, shared, fleet`,
		"-listen 9464":         `-listen "9464": address 9464: missing port in address`,
		"-listen :http:":       `-listen ":http:": address :http:: too many colons in address`,
		"-otlp localhost:4318": `-otlp "localhost:4318": must be a URL such as http://localhost:4318`,
		"-otlp grpc://a:4317":  `-otlp "grpc://a:4317": must be a URL such as http://localhost:4318`,
		"-otlp http://":        `-otlp "http://": must be a URL such as http://localhost:4318`,
		"-fro 1s":              "flag provided but not defined: -fro",
		"-json 10":             `unexpected argument "10": there are only flags`,
	} {
		status, out, errs := runFor(t.Context(), strings.Fields(args)...)
		if status != 2 || out != "" || !strings.Contains(errs, want) || strings.Count(errs, "\n") != 1 {
			t.Errorf("%s: status %d, output %q, error %q, want %q", args, status, out, errs, want)
		}
	}
}

func TestAnAddressThatIsTakenIsNamed(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	at := ln.Addr().String()
	status, out, errs := runFor(t.Context(), "-json", "-listen", at)
	if status != 1 || out != "" || !strings.Contains(errs, "-listen "+at+": listen tcp") {
		t.Errorf("status %d, output %q, error %q", status, out, errs)
	}
}

func TestHelpIsNoError(t *testing.T) {
	status, out, errs := runFor(t.Context(), "-help")
	if status != 0 || out != "" || !strings.Contains(errs, "-otlp") {
		t.Errorf("status %d, output %q, error %q", status, out, errs)
	}
}

func TestAScreenThatCannotBeWrittenToIsAnError(t *testing.T) {
	var errs bytes.Buffer
	status := run(t.Context(), []string{"-for", "1ms", "-only", "api"}, full{}, &errs)
	if status != 1 || !strings.HasSuffix(errs.String(), "observability: disk full\n") {
		t.Errorf("status %d, error %q", status, &errs)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("disk full") }

func runFor(ctx context.Context, args ...string) (status int, out, errs string) {
	var o, e bytes.Buffer
	status = run(ctx, args, &o, &e)
	return status, o.String(), e.String()
}

// mustRun decodes what -json printed, strictly.
func mustRun(t *testing.T, args ...string) (r report) {
	t.Helper()
	status, out, errs := runFor(t.Context(), args...)
	if status != 0 || strings.Count(out, "\n") != 1 {
		t.Fatalf("status %d: %s%s", status, errs, out)
	}
	lines := json.NewDecoder(strings.NewReader(out))
	lines.DisallowUnknownFields()
	if err := lines.Decode(&r); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return r
}
