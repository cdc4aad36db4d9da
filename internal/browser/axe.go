package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// axe-core, which looks for what people with a screen reader, a keyboard or poor sight
// stumble over. It is MPL-2.0, needed for tests only, and so not in this repository.
const (
	axeVersion = "4.14.1"
	// axeSum is what the registry's metadata call its integrity.
	axeSum = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="

	npmjs      = "https://registry.npmjs.org"
	axeInside  = "package/axe.min.js"
	axeAtMost  = 16 << 20 // bytes; there are 4 MB
	axeTarball = "axe-core-" + axeVersion + ".tgz"
)

// axe returns axe-core's source, from the user's cache if it has been there before.
func axe(ctx context.Context) (script string, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	kept := filepath.Join(cache, "natwise", axeTarball)
	tarball, err := os.ReadFile(kept)
	if err != nil || !isAxe(tarball) {
		if tarball, err = fetchAxe(ctx); err != nil {
			return "", err
		}
		if err := keep(kept, tarball); err != nil {
			return "", err
		}
	}
	return unpack(tarball, axeInside)
}

func fetchAxe(ctx context.Context) ([]byte, error) {
	url := registry(ctx) + "/axe-core/-/" + axeTarball
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, answer.Status)
	}
	tarball, err := io.ReadAll(io.LimitReader(answer.Body, axeAtMost))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	if !isAxe(tarball) {
		return nil, fmt.Errorf("%s: its SHA-512 is not that of axe-core %s", url, axeVersion)
	}
	return tarball, nil
}

func isAxe(tarball []byte) bool {
	sum := sha512.Sum512(tarball)
	return base64.StdEncoding.EncodeToString(sum[:]) == axeSum
}

// registry is the one that npm would ask.
func registry(ctx context.Context) string {
	for _, name := range []string{"NPM_CONFIG_REGISTRY", "npm_config_registry"} {
		if url := os.Getenv(name); url != "" {
			return strings.TrimSuffix(url, "/")
		}
	}
	out, err := exec.CommandContext(ctx, "npm", "config", "get", "registry").Output()
	if url := strings.TrimSpace(string(out)); err == nil && strings.HasPrefix(url, "http") {
		return strings.TrimSuffix(url, "/")
	}
	return npmjs
}

// keep writes a file at once, so that two processes cannot disturb each other.
func keep(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "*.new")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // nothing, once it is renamed
	if _, err := f.Write(data); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// unpack returns one file of an npm tarball.
func unpack(tarball []byte, name string) (string, error) {
	z, err := gzip.NewReader(bytes.NewReader(tarball))
	if err != nil {
		return "", err
	}
	for files := tar.NewReader(z); ; {
		h, err := files.Next()
		if err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		if h.Name == name {
			text, err := io.ReadAll(io.LimitReader(files, axeAtMost))
			return string(text), err
		}
	}
}
