package tests

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"mime/multipart"
	"net/textproto"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
)

const binaryType = "Content-Type: application/octet-stream"

// part is one file of a multipart upload.
type part struct{ field, name, text string }

func multi(t *testing.T, parts ...part) (io.Reader, string) {
	t.Helper()
	var body bytes.Buffer
	writer := multipart.NewWriter(&body)
	for _, p := range parts {
		header := textproto.MIMEHeader{}
		header.Set("Content-Disposition", `form-data; name="`+p.field+`"; filename="`+p.name+`"`)
		w, err := writer.CreatePart(header)
		check(t, err)
		io.WriteString(w, p.text)
	}
	check(t, writer.Close())
	return &body, "Content-Type: " + writer.FormDataContentType()
}

func (g *guest) refusesFiles(method, query string, body io.Reader, status int, words string, headers ...string) {
	g.t.Helper()
	got, header, text := g.request(method, "/files"+query, body, headers...)
	var answer struct {
		Code    int
		Message string
	}
	check(g.t, json.Unmarshal([]byte(text), &answer))
	if got != status || answer.Code != status || !strings.Contains(answer.Message, words) ||
		header.Get("Content-Type") != "application/json; charset=utf-8" {
		g.t.Fatalf("%s %s answered %d %s, not %d ...%s...", method, query, got, text, status, words)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	check(t, err)
	return string(text)
}

func TestAFileIsUploadedAndDownloaded(t *testing.T) {
	g := startGuest(t)
	data := strings.Repeat("0123456789\x00\xff", 500_000)
	status, _, body := g.request("POST", "/files?path=dir/data.bin", strings.NewReader(data), binaryType)
	equal(t, "status", status, 200)
	equal(t, "answer", body, `[{"path":"`+g.home+`/dir/data.bin","name":"data.bin","type":"file"}]`)
	equal(t, "owner", owner(t, g.home+"/dir/data.bin"), userID)
	equal(t, "parent's owner", owner(t, g.home+"/dir"), userID)
	info, _ := os.Stat(g.home + "/dir/data.bin")
	equal(t, "mode", info.Mode().Perm(), os.FileMode(0o644))
	status, header, got := g.request("GET", "/files?path="+url.QueryEscape(g.home+"/dir/data.bin"), nil)
	equal(t, "status", status, 200)
	equal(t, "same bytes", got == data, true)
	equal(t, "length", header.Get("Content-Length"), "6000000")
	equal(t, "disposition", header.Get("Content-Disposition"), "inline; filename=data.bin")
}

func TestSeveralFilesAreUploadedAtOnce(t *testing.T) {
	g := startGuest(t)
	body, header := multi(t, part{"file", "a.txt", "A"}, part{"note", "ignored", "no"},
		part{"file", g.home + "/deep/er/b.txt", strings.Repeat("B", 300_000)}, part{"file", "empty", ""})
	status, _, text := g.request("POST", "/files", body, header)
	equal(t, "status", status, 200)
	var answer []struct{ Path, Name, Type string }
	check(t, json.Unmarshal([]byte(text), &answer))
	equal(t, "files", len(answer), 3)
	equal(t, "second", answer[1].Path, g.home+"/deep/er/b.txt")
	equal(t, "a.txt", content(t, g.home+"/a.txt"), "A")
	equal(t, "b.txt", len(content(t, g.home+"/deep/er/b.txt")), 300_000)
	equal(t, "empty", content(t, g.home+"/empty"), "")
	equal(t, "ignored", exists(g.home+"/ignored"), false)
}

func TestAFilenameIsTakenByteForByte(t *testing.T) {
	g := startGuest(t)
	for _, name := range []string{"dir/caf\u00e9 $(id).txt", "a';id;'", "100%25", "x=y, z"} {
		body, header := multi(t, part{"file", name, "text"})
		status, _, text := g.request("POST", "/files", body, header)
		equal(t, "status of "+name+text, status, 200)
		equal(t, "text", content(t, g.home+"/"+name), "text")
	}
}

func TestUploadsStayWithinTheRules(t *testing.T) {
	g := startGuest(t)
	check(t, os.Symlink("/etc", g.home+"/etc"))
	text := func() io.Reader { return strings.NewReader("text") }
	status, _, body := g.request("POST", "/files?path=../../../../../../tmp/up.txt", text(), binaryType)
	equal(t, "status", status, 200)
	equal(t, "path", strings.Contains(body, `"path":"/tmp/up.txt"`), true)
	check(t, os.Remove("/tmp/up.txt"))
	g.refusesFiles("POST", "?path=~root/x", text(), 400, "not the home of another user", binaryType)
	g.refusesFiles("POST", "?path="+strings.Repeat("n", 300), text(), 400, "too long", binaryType)
	g.refusesFiles("POST", "?path="+strings.Repeat("d/", 2500), text(), 400, "longer than 4095", binaryType)
	g.refusesFiles("POST", "?path=/dev/null", text(), 400, "not a regular file", binaryType)
	g.refusesFiles("POST", "?path=/proc/new", text(), 404, "/proc/new", binaryType)
}

func TestThePathOfTheQueryWins(t *testing.T) {
	g := startGuest(t)
	body, header := multi(t, part{"file", "given", "text"})
	status, _, _ := g.request("POST", "/files?path=wanted&username=root", body, header)
	equal(t, "status", status, 200)
	equal(t, "given exists", exists(g.home+"/given"), false)
	_, _, text := g.request("GET", "/files?path=wanted&username=root", nil)
	equal(t, "text", text, "text")
	g.must("/filesystem.Filesystem/Remove", path("wanted"), asRoot)
}

func TestAGzippedUploadIsUnpacked(t *testing.T) {
	g := startGuest(t)
	var packed bytes.Buffer
	writer := gzip.NewWriter(&packed)
	io.WriteString(writer, strings.Repeat("text", 100_000))
	check(t, writer.Close())
	half := bytes.NewReader(packed.Bytes()[:packed.Len()/2])
	status, _, _ := g.request("POST", "/files?path=file", &packed, binaryType, "Content-Encoding: gzip")
	equal(t, "status", status, 200)
	equal(t, "length", len(content(t, g.home+"/file")), 400_000)
	g.refusesFiles("POST", "?path=half", half, 400, "ended early", binaryType, "Content-Encoding: gzip")
	g.refusesFiles("POST", "?path=none", strings.NewReader("plain"), 400, "not gzip", binaryType, "Content-Encoding: gzip")
	g.refusesFiles("POST", "?path=none", strings.NewReader("plain"), 400, "unsupported content encoding", binaryType, "Content-Encoding: br")
	equal(t, "none exists", exists(g.home+"/none"), false)
}

func TestAnUploadReplacesAFileInPlace(t *testing.T) {
	g := startGuest(t)
	full := g.write("script", "a longer old text")
	check(t, os.Chmod(full, 0o755))
	check(t, os.Chown(full, 0, 0))
	g.request("POST", "/files?path=script", strings.NewReader("new"), binaryType)
	equal(t, "text", content(t, full), "new")
	equal(t, "owner", owner(t, full), userID)
	info, _ := os.Stat(full)
	equal(t, "mode", info.Mode().Perm(), os.FileMode(0o755))
}

func TestAnUploadWithoutAKnownLengthArrives(t *testing.T) {
	g := startGuest(t)
	status, _, _ := g.request("POST", "/files?path=file", io.MultiReader(strings.NewReader("chunk"), strings.NewReader("ed")), binaryType)
	equal(t, "status", status, 200)
	equal(t, "text", content(t, g.home+"/file"), "chunked")
}

func TestMetadataIsKeptUntilTheNextUpload(t *testing.T) {
	g := startGuest(t)
	_, _, body := g.request("POST", "/files?path=file", strings.NewReader("x"), binaryType, "X-Metadata-Origin: a robot")
	equal(t, "in the answer", strings.Contains(body, `"metadata":{"origin":"a robot"}`), true)
	entry := g.must("/filesystem.Filesystem/Stat", path("file"))["entry"].(object)
	equal(t, "in the entry", entry["metadata"].(object)["origin"], "a robot")
	g.request("POST", "/files?path=file", strings.NewReader("x"), binaryType)
	entry = g.must("/filesystem.Filesystem/Stat", path("file"))["entry"].(object)
	equal(t, "metadata", entry["metadata"], nil)
	g.refusesFiles("POST", "?path=file", nil, 400, "printable ASCII", binaryType, "X-Metadata-A: \xc3\xa4")
	g.refusesFiles("POST", "?path=file", nil, 400, "4096", binaryType, "X-Metadata-A: "+strings.Repeat("a", 5000))
}

func TestADownloadHasTheNameOfItsFile(t *testing.T) {
	g := startGuest(t)
	for name, want := range map[string]string{
		"plain.txt":      `inline; filename=plain.txt`,
		"two words.txt":  `inline; filename="two words.txt"`,
		"a\"b;c.txt":     `inline; filename="a\"b;c.txt"`,
		"caf\u00e9.txt":  `inline; filename*=utf-8''caf%C3%A9.txt`,
		"caf\xe9.txt":    `inline; filename*=utf-8''caf%C3%A9.txt`,
		"a\nb\xff\x80.x": `inline; filename*=utf-8''a%0Ab%C3%BF%C2%80.x`,
	} {
		g.write(name, "text")
		status, header, body := g.request("GET", "/files?path="+url.QueryEscape(name), nil)
		equal(t, "status", status, 200)
		equal(t, "disposition", header.Get("Content-Disposition"), want)
		equal(t, "body", body, "text")
	}
}

func TestTheHeadOfADownloadComesAlone(t *testing.T) {
	g := startGuest(t)
	g.write("file", "0123456789")
	status, header, body := g.request("HEAD", "/files?path=file", nil)
	equal(t, "status", status, 200)
	equal(t, "length", header.Get("Content-Length"), "10")
	equal(t, "body", body, "")
}

func TestParentsThatExistStayAsTheyAre(t *testing.T) {
	g := startGuest(t)
	check(t, os.Mkdir(g.home+"/theirs", 0o750))
	g.request("POST", "/files?path=theirs/a/b/file", strings.NewReader("x"), binaryType)
	equal(t, "owner of theirs", owner(t, g.home+"/theirs"), 0)
	info, _ := os.Stat(g.home + "/theirs")
	equal(t, "mode of theirs", info.Mode().Perm(), os.FileMode(0o750))
	for _, made := range []string{"/theirs/a", "/theirs/a/b"} {
		equal(t, "owner of "+made, owner(t, g.home+made), userID)
		info, _ = os.Stat(g.home + made)
		equal(t, "mode of "+made, info.Mode().Perm(), os.FileMode(0o755))
	}
}

func TestAPartOfAFileIsDownloaded(t *testing.T) {
	g := startGuest(t)
	g.write("file", "0123456789")
	status, header, body := g.request("GET", "/files?path=file", nil, "Range: bytes=2-4")
	equal(t, "status", status, 206)
	equal(t, "range", header.Get("Content-Range"), "bytes 2-4/10")
	equal(t, "body", body, "234")
	status, _, _ = g.request("GET", "/files?path=file", nil, "If-Modified-Since: "+header.Get("Last-Modified"))
	equal(t, "unchanged", status, 304)
}

func TestAnEmptyDownloadHasALength(t *testing.T) {
	g := startGuest(t)
	g.write("empty", "")
	status, header, body := g.request("GET", "/files?path=empty", nil)
	equal(t, "status", status, 200)
	equal(t, "length", header.Get("Content-Length"), "0")
	equal(t, "body", body, "")
}

func TestAFileOfTheKernelIsReadToItsEnd(t *testing.T) {
	g := startGuest(t)
	_, _, body := g.request("GET", "/files?path=/proc/sys/kernel/random/boot_id", nil)
	equal(t, "body", body, content(t, "/proc/sys/kernel/random/boot_id"))
	_, _, large := g.request("GET", "/files?path=/proc/kallsyms", nil)
	equal(t, "large", len(large) > 1_000_000, true)
}

func TestADownloadIsRefused(t *testing.T) {
	g := startGuest(t)
	check(t, syscall.Mkfifo(g.home+"/pipe", 0o644))
	g.refusesFiles("GET", "?path=missing", nil, 404, "path '"+g.home+"/missing' does not exist")
	g.refusesFiles("GET", "?path=/etc/passwd/x", nil, 404, "does not exist")
	g.refusesFiles("GET", "?path=/tmp", nil, 400, "path '/tmp' is a directory")
	g.refusesFiles("GET", "?path=pipe", nil, 400, "is not a regular file")
	g.refusesFiles("GET", "?path=a%00b", nil, 400, "NUL")
	g.refusesFiles("GET", "?path=x&username=mallory", nil, 401, "error looking up user 'mallory': user: unknown user mallory")
	g.refusesFiles("GET", "?path=/etc/passwd", nil, 406, "identity", "Accept-Encoding: gzip, identity;q=0")
	g.refusesFiles("DELETE", "?path=/etc/passwd", nil, 405, "only GET and POST")
}

func TestAnUploadIsRefused(t *testing.T) {
	g := startGuest(t)
	g.write("file", "old")
	check(t, syscall.Mkfifo(g.home+"/pipe", 0o644))
	text := func() io.Reader { return strings.NewReader("text") }
	g.refusesFiles("POST", "?path=~", text(), 400, "path is a directory: "+g.home, binaryType)
	g.refusesFiles("POST", "?path=pipe", text(), 400, "path is not a regular file", binaryType)
	g.refusesFiles("POST", "?path=file/below", text(), 400, "not a directory", binaryType)
	g.refusesFiles("POST", "?path=%00", text(), 400, "NUL", binaryType)
	g.refusesFiles("POST", "", text(), 400, "path is required", binaryType)
	g.refusesFiles("POST", "?path=x", text(), 400, "unsupported content type: text/plain", "Content-Type: text/plain")
	g.refusesFiles("POST", "?path=x", text(), 400, "unsupported content type")
	g.refusesFiles("POST", "?path=x", text(), 400, "no boundary", "Content-Type: multipart/form-data")
	g.refusesFiles("POST", "?path=x&username=mallory", text(), 401, "error looking up user 'mallory'", binaryType)
	body, header := multi(t, part{"other", "name", "text"})
	g.refusesFiles("POST", "", body, 400, "no part named 'file'", header)
	body, header = multi(t, part{"file", "", "text"})
	g.refusesFiles("POST", "", body, 400, "no filename", header)
	body, header = multi(t, part{"file", "twice", "one"}, part{"file", "~/twice", "two"})
	g.refusesFiles("POST", "", body, 400, "you cannot upload multiple files to the same path '"+g.home+"/twice'", header)
	equal(t, "twice", content(t, g.home+"/twice"), "one")
	equal(t, "file", content(t, g.home+"/file"), "old")
	equal(t, "x exists", exists(g.home+"/x"), false)
}

func TestAFullDiskIsTold(t *testing.T) {
	g := startGuest(t)
	script := "cd " + g.home + " && mkdir disk && mount -t tmpfs -o size=1m disk disk && echo ok"
	equal(t, "mount", g.start(shell(script), asRoot).finish().stdout, "ok\n")
	large := strings.Repeat("x", 2<<20)
	g.refusesFiles("POST", "?path=disk/known", strings.NewReader(large), 507, "not enough disk space available", binaryType)
	unknown := io.MultiReader(strings.NewReader(large))
	g.refusesFiles("POST", "?path=disk/unknown", unknown, 507, "not enough disk space available", binaryType)
}

func TestAFileSizeLimitIsTold(t *testing.T) {
	g := startGuest(t)
	check(t, g.limitFileSize(1<<20))
	large := io.MultiReader(strings.NewReader(strings.Repeat("x", 2<<20)))
	g.refusesFiles("POST", "?path=file", large, 413, "file too large", binaryType)
	equal(t, "guest", g.start(shell("echo ok")).finish().stdout, "ok\n")
}

func TestFilesAreComposed(t *testing.T) {
	g := startGuest(t)
	g.write("one", "first ")
	g.write("two", "second")
	request := `{"source_paths":["one","two"],"destination":"out/all"}`
	status, _, body := g.request("POST", "/files/compose", strings.NewReader(request))
	equal(t, "status", status, 200)
	equal(t, "answer", strings.Contains(body, `"path":"`+g.home+`/out/all"`), true)
	equal(t, "text", content(t, g.home+"/out/all"), "first second")
	equal(t, "owner", owner(t, g.home+"/out/all"), userID)
	equal(t, "one exists", exists(g.home+"/one"), false)
	g.write("three", "third")
	for request, words := range map[string]string{
		`{"source_paths":["three","missing"],"destination":"no"}`: "does not exist",
		`{"source_paths":["three"],"destination":"three"}`:        "also a source",
		`{"source_paths":[],"destination":"no"}`:                  "are required",
		`{"source_paths":["three"]}`:                              "are required",
		`nonsense`:                                                "not valid JSON",
	} {
		_, _, body := g.request("POST", "/files/compose", strings.NewReader(request))
		equal(t, "refusal of "+request, strings.Contains(body, words), true)
	}
	equal(t, "three", content(t, g.home+"/three"), "third")
	equal(t, "no exists", exists(g.home+"/no"), false)
}
