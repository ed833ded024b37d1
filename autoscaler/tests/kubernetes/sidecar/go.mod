module sidecar

go 1.26.0
