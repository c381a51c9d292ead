output "s3_uri" {
  description = "Where weights go: add a prefix for each model."
  value       = module.artifacts.s3_uri
}

output "repository_url" {
  description = "Where images go: add a tag."
  value       = local.repository
}

output "endpoint" {
  description = "Name of the endpoint: EndpointName for the invoke calls."
  value       = module.chat.name
}

output "url" {
  description = "URL of the function, for signed requests."
  value       = module.titles.url
}
