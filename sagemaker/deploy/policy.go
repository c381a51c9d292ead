package deploy

import (
	"fmt"
	"regexp"
	"strings"
)

// Policy is what the role of an endpoint's container needs.
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

var keyARN = regexp.MustCompile(`^arn:aws[a-z-]*:kms:`)

// partition is AWS's partition that a region is in.
func partition(region string) string {
	switch {
	case strings.HasPrefix(region, "cn-"):
		return "aws-cn"
	case strings.HasPrefix(region, "us-gov-"):
		return "aws-us-gov"
	}
	return "aws"
}

// Account is the account that s is deployed to, as far as s says: that of the
// role or else of the image.
func (s *Spec) Account() string {
	if parts := strings.Split(s.Role, ":"); len(parts) > 4 {
		return parts[4]
	}
	if account, rest, ok := strings.Cut(s.Image, "."); ok && strings.HasPrefix(rest, "dkr.ecr") {
		return account
	}
	return "ACCOUNT"
}

// Policy returns the least that the endpoint's role needs in an account. s has
// passed Check.
func (s *Spec) Policy(region, account string) Policy {
	arn := func(service, resource string) string {
		return fmt.Sprintf("arn:%s:%s:%s:%s:%s", partition(region), service, region, account, resource)
	}
	var all []Statement
	allow := func(sid string, resources []string, actions ...string) *Statement {
		all = append(all, Statement{Sid: sid, Effect: "Allow", Action: actions, Resource: resources})
		return &all[len(all)-1]
	}
	if m := ecrImage.FindStringSubmatch(s.Image); m != nil {
		registry, path, _ := strings.Cut(s.Image, "/")
		owner, _, _ := strings.Cut(registry, ".")
		repository, _, _ := strings.Cut(path, "@")
		repository, _, _ = strings.Cut(repository, ":")
		allow("ImageLogin", []string{"*"}, "ecr:GetAuthorizationToken")
		allow("Image", []string{fmt.Sprintf("arn:%s:ecr:%s:%s:repository/%s", partition(region), m[2], owner, repository)},
			"ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
	}
	for i, place := range s.reads() {
		bucket, key, _ := strings.Cut(strings.TrimPrefix(place, "s3://"), "/")
		object := key
		if object == "" || strings.HasSuffix(object, "/") {
			object += "*"
		}
		of := "arn:" + partition(region) + ":s3:::" + bucket
		allow(fmt.Sprint("Read", i), []string{of + "/" + object}, "s3:GetObject", "s3:GetObjectVersion")
		allow(fmt.Sprint("List", i), []string{of}, "s3:ListBucket").Condition = Condition{"StringLike": {"s3:prefix": {key + "*"}}}
	}
	if s.AsyncOutput != "" {
		place := strings.TrimSuffix(strings.TrimPrefix(s.AsyncOutput, "s3://"), "/")
		allow("Write", []string{"arn:" + partition(region) + ":s3:::" + place + "/*"}, "s3:PutObject", "s3:AbortMultipartUpload")
	}
	if s.KMSKey != "" {
		key := s.KMSKey
		switch {
		case keyARN.MatchString(key):
		case strings.HasPrefix(key, "alias/"):
			key = arn("kms", "key/*") // IAM has no permissions by alias alone; see the condition
		default:
			key = arn("kms", "key/"+key)
		}
		st := allow("Keys", []string{key}, "kms:CreateGrant", "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey")
		if strings.HasPrefix(s.KMSKey, "alias/") {
			st.Condition = Condition{"ForAnyValue:StringEquals": {"kms:ResourceAliases": {s.KMSKey}}}
		}
	}
	allow("Logs", []string{arn("logs", "log-group:"+logGroup(s.Name)+":*")},
		"logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents")
	allow("Metrics", []string{"*"}, "cloudwatch:PutMetricData").Condition = Condition{"StringLike": {"cloudwatch:namespace": {"AWS/SageMaker", "/aws/sagemaker/*"}}}
	if len(s.Subnets) > 0 {
		interfaces := []string{arn("ec2", "network-interface/*")}
		for _, id := range s.Subnets {
			interfaces = append(interfaces, arn("ec2", "subnet/"+id))
		}
		for _, id := range s.SecurityGroups {
			interfaces = append(interfaces, arn("ec2", "security-group/"+id))
		}
		allow("Interfaces", interfaces, "ec2:CreateNetworkInterface", "ec2:CreateNetworkInterfacePermission",
			"ec2:DeleteNetworkInterface", "ec2:DeleteNetworkInterfacePermission")
		allow("Network", []string{"*"}, "ec2:DescribeDhcpOptions", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSecurityGroups",
			"ec2:DescribeSubnets", "ec2:DescribeVpcs")
	}
	return Policy{
		Trust: Document{"2012-10-17", []Statement{{
			Sid: "SageMaker", Effect: "Allow", Principal: map[string]string{"Service": "sagemaker.amazonaws.com"}, Action: []string{"sts:AssumeRole"},
			// Otherwise SageMaker could be made to use the role by another account.
			Condition: Condition{"StringEquals": {"aws:SourceAccount": {account}}},
		}}},
		Permissions: Document{"2012-10-17", all},
	}
}

// reads are the places in S3 that the role reads.
func (s *Spec) reads() (places []string) {
	switch {
	case strings.HasPrefix(s.Model, "s3://"):
		uri, _, _ := strings.Cut(s.Model, "?")
		places = append(places, uri)
	case s.Model != "":
		prefix := strings.TrimSuffix(s.Bucket, "/") + "/" + s.Name + "/"
		places = append(places, "s3://"+prefix)
	}
	if uri := s.Env["MODEL_ID"]; s3Place.MatchString(uri) {
		uri, _, _ = strings.Cut(uri, "?")
		places = append(places, uri)
	}
	return places
}
