package files

import (
	"bufio"
	"compress/gzip"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"path/filepath"
	"strings"

	"gatehouse/guest/accounts"
	"gatehouse/guest/paths"
	"gatehouse/guest/plain"
)

const (
	// maxFiles is how many files one upload may have.
	maxFiles = 1000
	// readAhead is how much of a multipart body is read from the connection at once, in bytes.
	readAhead = 64 << 10

	metadataHeader = "X-Metadata-"
	maxMetadataKey = 246
	maxMetadata    = 4096
	metadataPrefix = "user.e2b."
)

type uploaded struct {
	Path     string            `json:"path"`
	Name     string            `json:"name"`
	Type     string            `json:"type"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

// upload is one request that brings files.
type upload struct {
	user     *accounts.User
	path     string
	metadata map[string]string
	results  []uploaded
	seen     map[string]bool
}

func (s *Service) upload(w http.ResponseWriter, r *http.Request) {
	results, err := s.receive(r)
	if err != nil {
		writeError(w, err)
		return
	}
	plain.JSON(w, http.StatusOK, results)
}

func (s *Service) receive(r *http.Request) ([]uploaded, error) {
	query := r.URL.Query()
	user, err := s.user(r, query.Get("username"))
	if err != nil {
		return nil, err
	}
	metadata, err := metadataOf(r.Header)
	if err != nil {
		return nil, err
	}
	body, size, err := bodyOf(r)
	if err != nil {
		return nil, err
	}
	u := &upload{user: user, path: query.Get("path"), metadata: metadata, seen: make(map[string]bool)}
	mediaType, parameters, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case err == nil && mediaType == "multipart/form-data":
		err = u.parts(body, parameters["boundary"])
	case err == nil && mediaType == "application/octet-stream":
		if u.path == "" {
			return nil, fail(http.StatusBadRequest, "path is required for an application/octet-stream upload")
		}
		err = u.store(u.path, body, size)
	default:
		err = fail(http.StatusBadRequest, "unsupported content type: "+paths.Shown(r.Header.Get("Content-Type")))
	}
	return u.results, err
}

// bodyOf returns the decoded body and its size, -1 when that is not known.
func bodyOf(r *http.Request) (io.Reader, int64, error) {
	switch coding := strings.ToLower(strings.TrimSpace(r.Header.Get("Content-Encoding"))); coding {
	case "", "identity":
		return r.Body, r.ContentLength, nil
	case "gzip":
		decoded, err := gzip.NewReader(r.Body)
		if err != nil {
			return nil, 0, fail(http.StatusBadRequest, "the body is not gzip")
		}
		return decoded, -1, nil
	default:
		return nil, 0, fail(http.StatusBadRequest, "unsupported content encoding: "+paths.Shown(coding))
	}
}

func (u *upload) parts(body io.Reader, boundary string) error {
	if boundary == "" {
		return fail(http.StatusBadRequest, "the multipart body has no boundary")
	}
	reader := multipart.NewReader(bufio.NewReaderSize(body, readAhead), boundary)
	for {
		part, err := reader.NextRawPart()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return errSource
		}
		if part.FormName() != "file" {
			continue
		}
		if err := u.part(part); err != nil {
			return err
		}
	}
	if len(u.results) == 0 {
		return fail(http.StatusBadRequest, "the upload has no part named 'file'")
	}
	return nil
}

func (u *upload) part(part *multipart.Part) error {
	path := u.path
	if path == "" {
		// Part.FileName would cut the directories off.
		_, parameters, err := mime.ParseMediaType(part.Header.Get("Content-Disposition"))
		if path = parameters["filename"]; err != nil || path == "" {
			return fail(http.StatusBadRequest, "a part named 'file' has no filename, and there is no path")
		}
	}
	if len(u.results) >= maxFiles {
		return fail(http.StatusBadRequest, "the upload has too many files")
	}
	return u.store(path, part, -1)
}

func (u *upload) store(given string, source io.Reader, size int64) error {
	path, err := resolve(given, u.user)
	if err != nil {
		return err
	}
	if u.seen[path] {
		return fail(http.StatusBadRequest, "you cannot upload multiple files to the same path '"+paths.Shown(path)+
			"' in one upload request, only the first specified file was uploaded")
	}
	u.seen[path] = true
	if err := write(path, u.user, source, size, u.metadata); err != nil {
		return err
	}
	u.results = append(u.results, uploaded{path, filepath.Base(path), "file", u.metadata})
	return nil
}

// metadataOf returns what the X-Metadata-* headers note about the files.
func metadataOf(header http.Header) (map[string]string, error) {
	metadata := make(map[string]string)
	total := 0
	for name, values := range header {
		key, found := strings.CutPrefix(name, metadataHeader)
		if !found {
			continue
		}
		key = strings.ToLower(key)
		value := strings.Join(values, ",")
		total += len(metadataPrefix) + len(key) + len(value)
		if key == "" || len(key) > maxMetadataKey || !printable(key) || !printable(value) {
			return nil, fail(http.StatusBadRequest, "the header "+paths.Shown(name)+
				" must have a name of at most 246 bytes and be printable ASCII")
		}
		metadata[key] = value
	}
	if total > maxMetadata {
		return nil, fail(http.StatusBadRequest, "the metadata headers are larger than 4096 bytes")
	}
	return metadata, nil
}

func printable(text string) bool {
	for i := range len(text) {
		if text[i] < 0x20 || text[i] > 0x7e {
			return false
		}
	}
	return true
}
