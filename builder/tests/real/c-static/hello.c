#include <stdio.h>

int main(int argc, char **argv)
{
	printf("hello from scratch, %s\n", argc > 1 ? argv[1] : "nobody");
	return 0;
}
