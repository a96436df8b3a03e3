package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/cookiejar"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A restart logs nobody out.
func TestRestart(t *testing.T) {
	file := filepath.Join(t.TempDir(), "sessions.db")
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Jar: jar}
	for i, want := range []string{"Ann, visit 1\n", "Ann, visit 2\n", "Ann, visit 3\n"} {
		out, said := io.Pipe()
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- run(ctx, "127.0.0.1:0", file, said) }()
		line := make([]byte, 200)
		n, err := out.Read(line)
		if err != nil {
			t.Fatal(err)
		}
		_, url, _ := strings.Cut(string(bytes.TrimSpace(line[:n])), "open ")
		if i > 0 {
			url, _, _ = strings.Cut(url, "?")
		}
		res, err := browser.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if string(body) != want {
			t.Errorf("run %d: %q, want %q", i, body, want)
		}
		browser.CloseIdleConnections()
		stop()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("the program does not end")
		}
	}
}
