"""Ray clusters: join or start one, write the files that launch one, run studies on it as jobs."""
