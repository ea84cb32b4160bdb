/* Nothing: what starting a container costs. */
int main(void) { return 0; }
