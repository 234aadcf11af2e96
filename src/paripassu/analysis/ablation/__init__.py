"""What each difference of two recipes does."""
