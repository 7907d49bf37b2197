"""Align on Kubeflow: submit and schedule runs, follow them, and check the cluster before the first one."""
