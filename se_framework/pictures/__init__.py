"""Pictures of data, samples and figures."""
