# make test sets up the servers that the tests need and runs all tests of all modules.
.PHONY: test
test:
	bash internal/servers/test.sh
