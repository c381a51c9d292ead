package deploy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/millrace-ai/millrace/internal/account"
)

var keyARN = regexp.MustCompile(`^arn:aws[a-z-]*:kms:`)

// Account is the account that s is deployed to, as far as s says: that of the
// role or else of the image.
func (s *Spec) Account() string { return account.Guess(s.Role, s.Image) }

// Policy returns the least that the endpoint's role needs in an account. s has
// passed Check.
func (s *Spec) Policy(region, id string) account.Policy {
	partition := account.Partition(region)
	arn := func(service, resource string) string {
		return fmt.Sprintf("arn:%s:%s:%s:%s:%s", partition, service, region, id, resource)
	}
	var all account.Permissions
	var repositories []string
	for _, uri := range []string{s.Image, s.ShadowImage} {
		image, ok := account.ParseImage(uri)
		arn := fmt.Sprintf("arn:%s:ecr:%s:%s:repository/%s", partition, image.Region, image.Account, image.Repository)
		if ok && !slices.Contains(repositories, arn) {
			repositories = append(repositories, arn)
		}
	}
	if len(repositories) > 0 {
		all.Allow("ImageLogin", []string{"*"}, "ecr:GetAuthorizationToken")
		all.Allow("Image", repositories, "ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer")
	}
	all.AllowReading(region, s.reads())
	if s.AsyncOutput != "" {
		place := strings.TrimSuffix(strings.TrimPrefix(s.AsyncOutput, "s3://"), "/")
		all.Allow("Write", []string{"arn:" + partition + ":s3:::" + place + "/*"}, "s3:PutObject", "s3:AbortMultipartUpload")
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
		st := all.Allow("Keys", []string{key}, "kms:CreateGrant", "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey")
		if strings.HasPrefix(s.KMSKey, "alias/") {
			st.Condition = account.Condition{"ForAnyValue:StringEquals": {"kms:ResourceAliases": {s.KMSKey}}}
		}
	}
	all.Allow("Logs", []string{arn("logs", "log-group:"+logGroup(s.Name)+":*")},
		"logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents")
	all.Allow("Metrics", []string{"*"}, "cloudwatch:PutMetricData").Condition = account.Condition{"StringLike": {"cloudwatch:namespace": {"AWS/SageMaker", "/aws/sagemaker/*"}}}
	if len(s.Subnets) > 0 {
		interfaces := []string{arn("ec2", "network-interface/*")}
		for _, id := range s.Subnets {
			interfaces = append(interfaces, arn("ec2", "subnet/"+id))
		}
		for _, id := range s.SecurityGroups {
			interfaces = append(interfaces, arn("ec2", "security-group/"+id))
		}
		all.Allow("Interfaces", interfaces, "ec2:CreateNetworkInterface", "ec2:CreateNetworkInterfacePermission",
			"ec2:DeleteNetworkInterface", "ec2:DeleteNetworkInterfacePermission")
		all.Allow("Network", []string{"*"}, "ec2:DescribeDhcpOptions", "ec2:DescribeNetworkInterfaces", "ec2:DescribeSecurityGroups",
			"ec2:DescribeSubnets", "ec2:DescribeVpcs")
	}
	return account.Policy{
		Trust: account.Document{Version: account.PolicyVersion, Statement: []account.Statement{{
			Sid: "SageMaker", Effect: "Allow", Principal: map[string]string{"Service": "sagemaker.amazonaws.com"}, Action: []string{"sts:AssumeRole"},
			// Otherwise SageMaker could be made to use the role by another account.
			Condition: account.Condition{"StringEquals": {"aws:SourceAccount": {id}}},
		}}},
		Permissions: account.Document{Version: account.PolicyVersion, Statement: all},
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
	return append(places, account.Reads(s.Env)...)
}
