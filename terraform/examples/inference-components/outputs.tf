output "endpoint" {
  description = "Name of the endpoint: EndpointName for the invoke calls."
  value       = module.fleet.name
}

output "components" {
  description = "Names of the components: InferenceComponentName for the invoke calls."
  value       = [module.large.name, module.small.name]
}
