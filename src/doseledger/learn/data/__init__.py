"""Cases as training inputs: channels, patches, loaders."""
