package account

import (
	"fmt"
	"regexp"
	"strings"
)

// Policy is what a role needs.
type Policy struct {
	Trust       Document `json:"trust"`       // who may act as the role
	Permissions Document `json:"permissions"` // what the role may do
}

// Document is a policy document of IAM.
type Document struct {
	Version   string
	Statement []Statement
}

// Statement allows something.
type Statement struct {
	Sid       string
	Effect    string
	Principal map[string]string `json:",omitempty"`
	Action    []string
	Resource  []string  `json:",omitempty"`
	Condition Condition `json:",omitempty"`
}

// Condition restricts a statement: the values that keys may have, by operator.
type Condition map[string]map[string][]string

// PolicyVersion is the version of IAM's language that documents are written in.
const PolicyVersion = "2012-10-17"

// Permissions collects statements.
type Permissions []Statement

// Allow adds a statement and returns it, for a condition.
func (p *Permissions) Allow(sid string, resources []string, actions ...string) *Statement {
	*p = append(*p, Statement{Sid: sid, Effect: "Allow", Action: actions, Resource: resources})
	return &(*p)[len(*p)-1]
}

// AllowReading adds the permissions to read places in S3, each a URI. One that
// does not end in a slash may be an object or, as MODEL_ID takes it, a prefix.
func (p *Permissions) AllowReading(region string, places []string) {
	for i, place := range places {
		bucket, key, _ := strings.Cut(strings.TrimPrefix(place, "s3://"), "/")
		of := "arn:" + Partition(region) + ":s3:::" + bucket
		objects := []string{of + "/" + key + "*"}
		if key != "" && !strings.HasSuffix(key, "/") {
			objects = []string{of + "/" + key, of + "/" + key + "/*"}
		}
		p.Allow(fmt.Sprint("Read", i), objects, "s3:GetObject", "s3:GetObjectVersion")
		p.Allow(fmt.Sprint("List", i), []string{of}, "s3:ListBucket").Condition = Condition{"StringLike": {"s3:prefix": {key + "*"}}}
	}
}

// Reads are the places in S3 that a server with these environment variables
// reads.
func Reads(env map[string]string) (places []string) {
	for _, name := range []string{"MODEL_ID", "HF_MODEL_ID", "LORA_ADAPTERS", "PREFIX_CACHE_FILE"} {
		for _, uri := range s3URI.FindAllString(env[name], -1) {
			if IsPlace(uri) {
				places = append(places, uri)
			}
		}
	}
	return places
}

// Partition is AWS's partition that a region is in.
func Partition(region string) string {
	switch {
	case strings.HasPrefix(region, "cn-"):
		return "aws-cn"
	case strings.HasPrefix(region, "us-gov-"):
		return "aws-us-gov"
	}
	return "aws"
}

var (
	roleARN  = regexp.MustCompile(`^arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]+$`)
	ecrImage = regexp.MustCompile(`^(\d{12})\.dkr\.ecr(?:-fips)?\.([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?/([^@:]+)[@:]?.*$`)
	s3Place  = regexp.MustCompile(`^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?$`)
	s3URI    = regexp.MustCompile(`s3://[^\s,"?]+`) // in a list, without options
)

// IsPlace reports whether s is a bucket, a prefix or an object in S3.
func IsPlace(s string) bool { return s3Place.MatchString(s) }

// Image is an image in a private registry of ECR.
type Image struct {
	Account, Region, Repository string
}

// ParseImage reads the URI of an image, and reports whether it is one in ECR.
func ParseImage(uri string) (i Image, ok bool) {
	m := ecrImage.FindStringSubmatch(uri)
	if m == nil {
		return Image{}, false
	}
	return Image{m[1], m[2], m[3]}, true
}

// Guess is the account of a role, or else of an image, or a word in its place.
func Guess(role, image string) string {
	if parts := strings.Split(role, ":"); len(parts) > 4 {
		return parts[4]
	}
	if i, ok := ParseImage(image); ok {
		return i.Account
	}
	return "ACCOUNT"
}

// CheckRole checks what --role and --create-role say of a role.
func CheckRole(role string, create bool) error {
	switch {
	case role != "" && create:
		return fmt.Errorf("--create-role makes a role, and --role names one that exists: give one of them")
	case role != "" && !roleARN.MatchString(role):
		return fmt.Errorf("--role %s: expected arn:aws:iam::ACCOUNT:role/NAME", role)
	}
	return nil
}
