module gatehouse/guest

go 1.26
