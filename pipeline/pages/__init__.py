"""What every local web page of phantumor is served with: a guarded server on loopback, NIfTI of arrays, NiiVue."""
