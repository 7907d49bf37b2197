"""What has happened: one experiment, written once and never changed, but for one pointer."""
