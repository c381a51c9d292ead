package source

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"strings"

	"github.com/millrace-ai/millrace/container/config"
	"github.com/millrace-ai/millrace/engine/weights"
)

const scheme = "s3://"

// IsS3 reports whether a model id is a place in S3.
func IsS3(location string) bool { return strings.HasPrefix(location, scheme) }

// IsArchive reports whether a model id is the name of an archive: it ends in
// .tar, .tar.gz, .tgz, .tar.zst or .tzst.
func IsArchive(location string) bool {
	if IsS3(location) {
		location, _, _ = strings.Cut(location, "?")
	}
	for _, end := range []string{".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst"} {
		if strings.HasSuffix(location, end) {
			return true
		}
	}
	return false
}

// Name is what a model from location is called: the location without options,
// or the name on the hub without a revision.
func Name(location string) string {
	if IsS3(location) {
		location, _, _ = strings.Cut(location, "?")
	}
	if m, ok, _ := parseHub(location, os.Getenv("HF_ENDPOINT")); ok { //nolint:errcheck // it is a name in any case
		return m.Repo
	}
	return location
}

// Check refuses a model id whose form is wrong, if it is a URL. It makes no request.
func Check(location string) error {
	if _, ok, err := parseHub(location, os.Getenv("HF_ENDPOINT")); ok {
		return err
	}
	if !strings.Contains(location, "://") {
		return nil
	}
	_, err := parseLocation(location)
	return err
}

// location is a place in S3.
type location struct {
	bucket string // a name, or the ARN of an access point
	key    string // of an object, or a prefix that ends in "/" or is empty
	file   string // the GGUF file below the prefix that is meant, "" for what is there
	// Options, after a question mark.
	version       string // versionId: of the object
	requesterPays bool   // requestPayer=requester: the reader agrees to pay
}

// parseLocation reads s3://bucket/key, s3://arn:…:accesspoint/name/key, and
// their options.
func parseLocation(text string) (location, error) {
	l, err := parsePlace(text)
	if err != nil || IsArchive(l.key) {
		return l, err
	}
	fail := func(why string) (location, error) {
		return location{}, fmt.Errorf("%s: %s", config.HideSecrets(text), why)
	}
	if l.version != "" {
		return fail("versionId belongs to one object, such as a .tar.gz; a prefix has none")
	}
	if weights.IsGGUF(l.key) {
		l.file = path.Base(l.key)
		l.key = strings.TrimSuffix(l.key, l.file)
		return l, nil
	}
	if strings.HasSuffix(l.key, ".safetensors") {
		return fail("a single file is not a model: give the prefix that holds config.json and the weights")
	}
	if l.key != "" && !strings.HasSuffix(l.key, "/") {
		l.key += "/"
	}
	return l, nil
}

// parsePlace is parseLocation for a key that may be anything.
func parsePlace(text string) (location, error) {
	var l location
	fail := func(format string, args ...any) (location, error) {
		return location{}, fmt.Errorf("%s: "+format, append([]any{config.HideSecrets(text)}, args...)...)
	}
	rest, ok := strings.CutPrefix(text, scheme)
	if !ok {
		return fail("expected a folder, a .gguf file, ORG/NAME of the Hugging Face hub, %sBUCKET/PREFIX, %sBUCKET/KEY.gguf or %sBUCKET/KEY.tar.gz", scheme, scheme, scheme)
	}
	rest, options, _ := strings.Cut(rest, "?")
	if strings.HasPrefix(rest, "arn:") {
		// arn:partition:s3:region:account:accesspoint/NAME/KEY
		parts := strings.SplitN(rest, "/", 3)
		if len(parts) < 2 || !strings.HasSuffix(parts[0], ":accesspoint") {
			return fail("expected the ARN of an access point, arn:aws:s3:REGION:ACCOUNT:accesspoint/NAME")
		}
		l.bucket = parts[0] + "/" + parts[1]
		if len(parts) == 3 {
			l.key = parts[2]
		}
	} else {
		l.bucket, l.key, _ = strings.Cut(rest, "/")
		if err := checkBucket(l.bucket); err != nil {
			return fail("%w", err)
		}
	}
	query, err := url.ParseQuery(options)
	if err != nil {
		return fail("the options after the question mark cannot be read")
	}
	for name, values := range query {
		switch name {
		case "versionId":
			l.version = values[0]
		case "requestPayer":
			if values[0] != "requester" {
				return fail("requestPayer=%s: expected requester", values[0])
			}
			l.requesterPays = true
		default:
			return fail("unknown option, known are versionId and requestPayer")
		}
	}
	return l, nil
}

// checkBucket checks the form of a bucket's name, so that a slip is found
// before the network is asked.
func checkBucket(name string) error {
	if name == "" {
		return errors.New("the bucket's name is missing")
	}
	if len(name) < 3 || len(name) > 255 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") != "" {
		return errors.New("not a bucket's name: expected 3 or more letters, digits, dots and hyphens")
	}
	return nil
}

// uri writes the object called key.
func (l location) uri(key string) string { return scheme + l.bucket + "/" + key }

// localName is the name a file gets in a folder, from its key without the
// prefix; an error if it would lie outside or cannot be one.
func localName(key string) (string, error) {
	clean := path.Clean("/" + key)[1:]
	if clean == "" || clean != key || strings.ContainsAny(key, "\\\x00") {
		return "", fmt.Errorf("%q cannot be the name of a file", key)
	}
	for part := range strings.SplitSeq(key, "/") {
		if len(part) > 255 {
			return "", fmt.Errorf("%q has a part of more than 255 bytes", key)
		}
	}
	return clean, nil
}
