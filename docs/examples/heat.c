/* The heat equation's step, as a library that Python calls: see heat.py.
 *
 *     gcc -O2 -ffp-contract=off -shared -fPIC -o libheat.so heat.c
 *
 * With `mpicc` in place of `gcc`, and -DWITH_MPI, it has a function that speaks MPI itself.
 */

/* One step. `new` is a copy of `old`; the outermost rows and columns stay as they are. */
void heat_step(const double *old, double *new, long rows, long columns, double rate)
{
    for (long i = 1; i < rows - 1; i++)
        for (long j = 1; j < columns - 1; j++) {
            const double *at = old + i * columns + j;
            double around = at[-columns] + at[columns] + at[-1] + at[1];
            new[i * columns + j] = *at + rate * (around - 4 * *at);
        }
}

#ifdef WITH_MPI
#include <mpi.h>

/* The hottest point of all ranks. `comm` is what mpi4py's comm.py2f() says: a number, which Fortran takes as it is. */
double heat_hottest(const double *rows, long count, int comm)
{
    double mine = -1e300, hottest;
    for (long i = 0; i < count; i++)
        if (rows[i] > mine)
            mine = rows[i];
    MPI_Allreduce(&mine, &hottest, 1, MPI_DOUBLE, MPI_MAX, MPI_Comm_f2c(comm));
    return hottest;
}
#endif
