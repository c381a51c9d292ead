output "endpoint" {
  description = "Name of the endpoint: EndpointName for the invoke calls."
  value       = module.summaries.name
}
