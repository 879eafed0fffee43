"""Complete programs that use edge-sdk, each run by a test."""
