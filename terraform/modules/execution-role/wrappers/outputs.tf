output "wrapper" {
  description = "The module's outputs, by the keys of items."
  value       = module.wrapper
}
