"""What the cluster has: plain node records, which of them a pod could use, and the cards that exist."""
