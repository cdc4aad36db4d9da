package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/natwise/natwise/internal/terminal"
)

func TestThePageIsWrittenInOnePiece(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "quickstart.html")
	if err := os.WriteFile(path, []byte("the last one"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := keptAt(t, path); !strings.HasSuffix(out, "The page, as it was in the end, is "+path+".\n\n") {
		t.Errorf("the screen ends with %q", out[max(0, len(out)-200):])
	}
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	isWhole(t, page)
	if files, _ := os.ReadDir(dir); len(files) != 1 {
		t.Errorf("in the directory are %v", files)
	}
}

func TestWhatALinkLeadsToIsReplacedAndNotTheLink(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "page.html"), filepath.Join(dir, "link.html")
	if err := os.WriteFile(path, []byte("the last one"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path, link); err != nil {
		t.Skip("no links here: ", err)
	}
	keptAt(t, link)
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is %v: %v", info.Mode(), err)
	}
	page, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	isWhole(t, page)
}

func TestWhatIsNoFileIsWrittenToAndNotReplaced(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("what is open has no name on Windows")
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	read := make(chan []byte)
	go func() {
		page, _ := io.ReadAll(r)
		read <- page
	}()
	keptAt(t, fmt.Sprintf("/dev/fd/%d", w.Fd()))
	w.Close()
	isWhole(t, <-read)
	r.Close()
}

func TestWhereNothingWasShownNoPageIsPromised(t *testing.T) {
	dir := t.TempDir()
	k, err := newKeepsake(filepath.Join(dir, "quickstart.html"))
	if err != nil {
		t.Fatal(err)
	}
	sc := blackhole(load{})
	sc.unable = errors.New("no such kernel")
	var out bytes.Buffer
	if _, err := perform(t.Context(), sc, loopback(), newScreen(&out, terminal.Terminal{}), k); err != nil {
		t.Fatal(err)
	}
	k.drop()
	if !strings.HasSuffix(out.String(), "There is no page of it: nothing was written to "+k.path+".\n\n") {
		t.Errorf("the screen says %q", &out)
	}
	if files, _ := os.ReadDir(dir); len(files) > 0 {
		t.Errorf("%v is left", files)
	}
}

func TestAPageThatCannotBeWrittenIsRefusedBeforeTheRun(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none", "x.html"): "no such file or directory",
		dir:                                  "is a directory",
		filepath.Join(file, "x.html"):        "not a directory",
	} {
		status, out, errs := runFor(t.Context(), "-json", "-html", path)
		if status != 2 || out != "" || errs != "quickstart: -html "+path+": "+want+"\n" {
			t.Errorf("status %d, output %q, error %q", status, out, errs)
		}
	}
}

func TestOfARunThatWasInterruptedThereIsNoPage(t *testing.T) {
	dir := t.TempDir()
	inMemory(t, func(t *testing.T, on network) {
		k, err := newKeepsake(filepath.Join(dir, "quickstart.html"))
		if err != nil {
			t.Fatal(err)
		}
		defer k.drop()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		sc := idle(visits{times: 5, atOnce: 10, scale: 1})
		if _, err := perform(ctx, sc, on, newScreen(io.Discard, terminal.Terminal{}), k); err == nil || err.Error() != "interrupted" {
			t.Errorf("it ended with %v", err)
		}
	})
	if files, _ := os.ReadDir(dir); len(files) > 0 {
		t.Errorf("%v is left", files)
	}
}

func TestAPageThatCannotBeKeptIsAnError(t *testing.T) {
	k, err := newKeepsake(filepath.Join(t.TempDir(), "quickstart.html"))
	if err != nil {
		t.Fatal(err)
	}
	defer k.drop()
	k.done, k.err = true, errors.New("disk full")
	if _, err := k.keep(); err == nil || !strings.HasSuffix(err.Error(), "quickstart.html: disk full") {
		t.Errorf("it ended with %v", err)
	}
	if _, err := os.Stat(k.path); err == nil {
		t.Error("half a page was kept")
	}
}

// keptAt plays a scene in virtual time, has its page kept at path, and returns what the screen
// says.
func keptAt(t *testing.T, path string) string {
	t.Helper()
	var out bytes.Buffer
	inMemory(t, func(t *testing.T, on network) {
		k, err := newKeepsake(path)
		if err != nil {
			t.Fatal(err)
		}
		defer k.drop()
		sc := exhaustion(work{requests: 100, concurrency: 50, service: time.Second, ports: 128})
		if _, err := perform(t.Context(), sc, on, newScreen(&out, terminal.Terminal{}), k); err != nil {
			t.Fatal(err)
		}
	})
	return out.String()
}

// isWhole checks that page is that of keptAt.
func isWhole(t *testing.T, page []byte) {
	t.Helper()
	for _, want := range []string{"<!doctype html>", "api.example:", `"idle":50`, "</html>"} {
		if !strings.Contains(strings.ToLower(string(page)), want) {
			t.Errorf("there is no %s in the page of %d bytes", want, len(page))
		}
	}
}
