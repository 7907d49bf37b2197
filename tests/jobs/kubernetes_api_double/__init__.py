"""A Kubernetes API server with the operators of Kubeflow, small: it runs a job's pods as processes of this machine."""
