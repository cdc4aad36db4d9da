package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/natwise/natwise/httpx/debug"
)

// A keepsake is natwise's live page as it was in the end, in one file. Whoever makes one
// drops it. A nil keepsake is none, and does nothing.
type keepsake struct {
	asked string   // what the flag says
	path  string   // of the file that is replaced; "": file is what was asked for
	file  *os.File // beside path, until it is complete
	page  *debug.Page
	end   context.CancelFunc // of the recording
	over  chan struct{}      // closed when it has ended
	html  bytes.Buffer
	err   error // of the drawing
	done  bool  // it was drawn
}

// newKeepsake makes sure that path can be written, before anything else is done. "" asks for
// none.
func newKeepsake(path string) (*keepsake, error) {
	if path == "" {
		return nil, nil
	}
	k := &keepsake{asked: path}
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		err = errors.New("is a directory")
	case err == nil && !info.Mode().IsRegular():
		// A device or a pipe is written to: in its place a file would be of no use. It is
		// not waited for until somebody reads the pipe.
		k.file, err = os.OpenFile(path, os.O_WRONLY|syscall.O_NONBLOCK, 0)
	default:
		k.path = path
		if to, err := filepath.EvalSymlinks(path); err == nil {
			k.path = to // what a link leads to is replaced, and not the link
		}
		k.file, err = os.CreateTemp(filepath.Dir(k.path), ".quickstart-*.html")
	}
	if err != nil {
		return nil, k.wrong(err)
	}
	return k, nil
}

func (k *keepsake) wrong(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err // the other path in it is nobody's business
	}
	return fmt.Errorf("-html %s: %w", k.asked, err)
}

// follow records what becomes of the ledger that there is, and draws the page when all is
// over, while the connections are still there.
func (k *keepsake) follow(lanes []*lane) {
	if k == nil || k.done {
		return
	}
	over := true
	for _, l := range lanes {
		if k.page == nil && l.user.ledger != nil {
			k.record(&debug.Page{Ledger: l.user.ledger})
		}
		over = over && l.standing().over
	}
	if over && k.page != nil {
		k.done, k.err = true, k.page.WriteHTML(&k.html)
	}
}

func (k *keepsake) record(page *debug.Page) {
	ctx, end := context.WithCancel(context.Background())
	k.page, k.end, k.over = page, end, make(chan struct{})
	go func() {
		defer close(k.over)
		page.Record(ctx)
	}()
}

// keep puts the page where it was asked for, in place of a file that is there, and returns
// a sentence about that.
func (k *keepsake) keep() (said string, err error) {
	switch {
	case k == nil:
		return "", nil
	case !k.done:
		return "There is no page of it: nothing was written to " + k.asked + ".", nil
	}
	if err = k.err; err == nil {
		_, err = k.html.WriteTo(k.file)
	}
	if err == nil && k.path != "" {
		err = k.file.Chmod(0o644)
	}
	if err = errors.Join(err, k.file.Close()); err == nil && k.path != "" {
		err = os.Rename(k.file.Name(), k.path)
	}
	if err != nil {
		return "", k.wrong(err)
	}
	return "The page, as it was in the end, is " + k.asked + ".", nil
}

// drop ends the recording, and takes away what was not kept.
func (k *keepsake) drop() {
	if k == nil {
		return
	}
	if k.end != nil {
		k.end()
		<-k.over
	}
	k.file.Close()
	if k.path != "" {
		os.Remove(k.file.Name()) // which is not there any more if it was kept
	}
}
