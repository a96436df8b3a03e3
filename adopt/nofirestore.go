//go:build nofirestore

package adopt

func isReference(any) bool { return false }
