package filesystem

import (
	"bytes"
	"strings"
	"syscall"
)

const (
	metadataPrefix = "user.e2b."
	// maxMetadata bounds names and values of one file together, in bytes, prefixes counted.
	maxMetadata = 4096
)

// ReadMetadata returns what uploads have noted about a file; nil when there is nothing.
func ReadMetadata(path string) map[string]string {
	var metadata map[string]string
	for _, name := range noted(path) {
		value := make([]byte, maxMetadata)
		n, err := syscall.Getxattr(path, name, value)
		if err != nil {
			continue
		}
		if metadata == nil {
			metadata = make(map[string]string)
		}
		metadata[strings.TrimPrefix(name, metadataPrefix)] = strings.ToValidUTF8(string(value[:n]), "?")
	}
	return metadata
}

// WriteMetadata replaces what is noted about a file. File systems that cannot keep it drop it silently.
func WriteMetadata(path string, metadata map[string]string) {
	for _, name := range noted(path) {
		if _, stays := metadata[strings.TrimPrefix(name, metadataPrefix)]; !stays {
			syscall.Removexattr(path, name)
		}
	}
	for name, value := range metadata {
		syscall.Setxattr(path, metadataPrefix+name, []byte(value), 0)
	}
}

func noted(path string) []string {
	size, err := syscall.Listxattr(path, nil)
	if err != nil || size == 0 {
		return nil
	}
	list := make([]byte, min(size, 64<<10))
	if size, err = syscall.Listxattr(path, list); err != nil {
		return nil
	}
	var names []string
	for name := range bytes.SplitSeq(list[:size], []byte{0}) {
		if strings.HasPrefix(string(name), metadataPrefix) {
			names = append(names, string(name))
		}
	}
	return names
}
