package main

import (
	"os"
	"strings"
	"testing"
)

// The program of the README is this one.
func TestReadmeProgram(t *testing.T) {
	program, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(program), "package main\n")
	if !strings.Contains(string(readme), "```go\npackage main\n"+strings.TrimRight(body, "\n")+"\n```\n") {
		t.Error("README.md does not show examples/hello/main.go")
	}
}
