package config

import "strings"

// HideSecrets replaces what may be secret of a URL by stars: name and password,
// and the query, whose signatures and tokens let in whoever has them. What is
// not a URL it returns as it is. Options of s3:// that open nothing stay.
func HideSecrets(text string) string {
	scheme, rest, isURL := strings.Cut(text, "://")
	if !isURL {
		return text
	}
	rest, query, asks := strings.Cut(rest, "?")
	authority := rest
	if scheme == "s3" { // whose keys may contain @
		authority, _, _ = strings.Cut(rest, "/")
	}
	if at := strings.LastIndex(authority, "@"); at >= 0 {
		rest = "***" + rest[at:]
	}
	text = scheme + "://" + rest
	if !asks {
		return text
	}
	options := strings.Split(query, "&")
	for i, option := range options {
		switch name, _, named := strings.Cut(option, "="); {
		case scheme == "s3" && (name == "versionId" || name == "requestPayer"):
		case named:
			options[i] = name + "=***"
		default:
			options[i] = "***"
		}
	}
	return text + "?" + strings.Join(options, "&")
}
