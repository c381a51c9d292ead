output "url" {
  description = "URL of the function, for signed requests."
  value       = module.small.url
}
