"""The real thing for long: hosts, a Cluster between them, agents in real browsers, random faults, and a report."""
