module worker

go 1.26
