// Package e2e runs package adopt against the libraries that it imports from: programs on the real ones make sessions,
// which the importers read and forget. It is a module of its own, so that those who use adopt do not get their
// requirements.
//
// With -update the tests write what the libraries have made to ../testdata, which the tests of adopt read without the
// libraries for as long as the importers exist.
package e2e
