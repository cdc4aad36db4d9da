package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/natwise/natwise/httpx/debug"
)

// A keepsake is natwise's live page as it was in the end, in one file. Whoever makes one
// drops it. A nil keepsake is none, and does nothing.
type keepsake struct {
	path string
	file *os.File // beside path, until it is complete
	page *debug.Page
	end  context.CancelFunc // of the recording
	over chan struct{}      // closed when it has ended
	err  error              // of the writing
	done bool               // it was written
}

// newKeepsake makes sure that path can be written, before anything else is done. "" asks for
// none.
func newKeepsake(path string) (*keepsake, error) {
	if path == "" {
		return nil, nil
	}
	refuse := func(err error) (*keepsake, error) {
		if e, ok := errors.AsType[*fs.PathError](err); ok {
			err = e.Err // the other path in it is nobody's business
		}
		return nil, fmt.Errorf("-html %s: %w", path, err)
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return refuse(errors.New("is a directory"))
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".quickstart-*.html")
	if err != nil {
		return refuse(err)
	}
	return &keepsake{path: path, file: file}, nil
}

// follow records what becomes of the ledger that there is, and writes the page when all is
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
		k.done, k.err = true, k.page.WriteHTML(k.file)
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

// keep puts the page where it was asked for, in place of what is there.
func (k *keepsake) keep() error {
	if k == nil || !k.done {
		return nil
	}
	err := errors.Join(k.err, k.file.Chmod(0o644), k.file.Close())
	if err == nil {
		err = os.Rename(k.file.Name(), k.path)
	}
	if err != nil {
		return fmt.Errorf("-html %s: %w", k.path, err)
	}
	return nil
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
	os.Remove(k.file.Name()) // which is not there any more if it was kept
}
