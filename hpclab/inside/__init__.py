"""What runs in a job, on a compute node. Imports only errors, units, job, event, folder, connection and launchers."""
