# Values for the variables of all examples, to plan them with.
image         = "123456789012.dkr.ecr.eu-west-1.amazonaws.com/millrace@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
weights       = "s3://models/llama/"
small_weights = "s3://models/small/"
bucket        = "summaries"
tag           = "1.2.0"
digest        = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
pager         = "arn:aws:sns:eu-west-1:123456789012:pager"
caller_role   = "frontend"

network = {
  vpc_id             = "vpc-0123456789abcdef0"
  subnet_ids         = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
  security_group_ids = ["sg-0123456789abcdef0"]
  route_table_ids    = ["rtb-0123456789abcdef0"]
  cidr_blocks        = ["10.0.0.0/16"]
}
